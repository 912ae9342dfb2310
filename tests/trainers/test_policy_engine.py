"""A sample depends on its request and the weights, and its log-probabilities are true."""

# PyTorch's annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import torch

from palmette.trainers.engine import PolicyEngine
from palmette.trainers.policy import create, load_model, weights_to_bytes
from palmette.trainers.sampling import BadRequest, Sample, SampleRequest, WindowExceeded


def requests(count: int) -> list[SampleRequest]:
    """Of all lengths, so that batches are padded, and end at different times."""
    draw = random.Random(7)
    return [
        SampleRequest(
            prompt_ids=tuple(draw.randrange(262) for _ in range(draw.randrange(1, 40))),
            max_tokens=draw.randrange(1, 24),
            temperature=draw.choice((0.0, 0.7, 1.0, 1.6)),
            seed=draw.getrandbits(64),
        )
        for _ in range(count)
    ]


def ids(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    return [sample.output_ids for sample in samples]


def test_a_request_gets_the_same_answer_alone_in_a_batch_and_in_another_order(engine: PolicyEngine) -> None:
    asked = requests(33)
    together = engine.generate(asked)
    alone = [engine.generate([request])[0] for request in asked]
    order = random.Random(1).sample(range(33), 33)
    shuffled = engine.generate([asked[index] for index in order])
    assert ids(together) == ids(alone)
    assert ids(shuffled) == [together[index].output_ids for index in order]
    assert len(set(map(len, ids(together)))) > 5  # the batch did shrink on its way


def test_log_probabilities_are_those_of_a_plain_forward_pass(engine: PolicyEngine, policy_dir: Path) -> None:
    asked = requests(24)
    model = cast("Callable[..., Any]", load_model(policy_dir))
    for request, sample in zip(asked, engine.generate(asked), strict=True):
        sequence = torch.tensor([request.prompt_ids + sample.output_ids])
        with torch.no_grad():
            logits = model(input_ids=sequence).logits[0, len(request.prompt_ids) - 1 : -1]
        expected = torch.log_softmax(logits / (request.temperature or 1.0), -1)
        taken = expected.gather(1, torch.tensor(sample.output_ids).unsqueeze(1)).squeeze(1)
        assert sample.logprobs == pytest.approx(taken.tolist(), abs=2e-5)
        if request.temperature == 0.0:
            assert sample.output_ids == tuple(logits.argmax(-1).tolist())


def test_samples_follow_the_distribution(engine: PolicyEngine) -> None:
    count = 4000
    one = SampleRequest(prompt_ids=(10, 20, 30), max_tokens=1)
    drawn = engine.generate([msgspec.structs.replace(one, seed=seed) for seed in range(count)])
    seen = Counter(sample.output_ids[0] for sample in drawn)
    probability = {sample.output_ids[0]: 2.718281828459045 ** sample.logprobs[0] for sample in drawn}
    common = [token for token, chance in probability.items() if chance * count > 20]
    assert len(common) > 3
    for token in common:  # five standard deviations; the seeds are fixed, so this never changes
        chance = probability[token]
        assert abs(seen[token] - count * chance) < 5 * (count * chance * (1 - chance)) ** 0.5


def test_the_end_of_turn_ends_an_answer_and_is_part_of_it(engine: PolicyEngine) -> None:
    asked = [SampleRequest(prompt_ids=(9,), max_tokens=200, seed=seed) for seed in range(64)]
    answers = engine.generate(asked)
    assert {answer.stop for answer in answers} == {"stop", "length"}
    for answer in answers:
        assert (answer.output_ids[-1] == engine.codec.eos_id) == (answer.stop == "stop")
        assert engine.codec.eos_id not in answer.output_ids[:-1]
        assert answer.stop == "stop" or len(answer.output_ids) == 200


def test_a_stop_sequence_ends_an_answer_where_it_first_appears(engine: PolicyEngine) -> None:
    free = SampleRequest(prompt_ids=(50, 60), max_tokens=30, seed=3)
    whole = engine.generate([free])[0].output_ids
    assert len(whole) > 6
    stop = whole[4:6]
    cut = engine.generate([msgspec.structs.replace(free, stop=((1, 2, 3), stop))])[0]
    first = next(end for end in range(2, len(whole) + 1) if whole[end - 2 : end] == stop)
    assert cut.output_ids == whole[:first]
    assert cut.stop == "stop"


def test_new_weights_are_used_at_once_and_marked_with_their_version(policy_dir: Path, tmp_path: Path) -> None:
    changed = PolicyEngine(policy_dir)
    other = create(tmp_path / "other", seed=2)
    before = changed.generate(requests(8))
    changed.load_weights(weights_to_bytes(load_model(other)), 17)
    after = changed.generate(requests(8))
    assert {sample.policy_version for sample in before} == {0}
    assert {sample.policy_version for sample in after} == {17}
    assert ids(after) == ids(PolicyEngine(other).generate(requests(8))) != ids(before)
    with pytest.raises(ValueError, match="safetensors"):
        changed.load_weights(b"nonsense", 18)
    assert changed.statistics().policy_version == 17


def test_an_engine_counts_what_it_did(policy_dir: Path) -> None:
    counted = PolicyEngine(policy_dir)
    asked = requests(5)
    answers = counted.generate(asked)
    assert counted.generate([]) == []
    did = counted.statistics()
    assert (did.batches, did.samples) == (1, 5)
    assert did.prompt_tokens == sum(len(request.prompt_ids) for request in asked)
    assert did.output_tokens == sum(len(answer.output_ids) for answer in answers)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt_ids": ()}, "prompt_ids is empty"),
        ({"prompt_ids": (5, 262)}, "262.*0 to 261"),
        ({"prompt_ids": (-1,)}, "-1"),
        ({"max_tokens": 0}, "max_tokens.*0"),
        ({"temperature": -0.5}, "temperature.*-0.5"),
        ({"temperature": float("nan")}, "temperature.*nan"),
        ({"seed": -1}, "seed.*-1"),
        ({"seed": 1 << 64}, "seed"),
        ({"stop": ((),)}, "empty sequence"),
    ],
)
def test_a_bad_request_is_refused_by_name(engine: PolicyEngine, change: dict[str, Any], complaint: str) -> None:
    bad = msgspec.structs.replace(SampleRequest(prompt_ids=(5,)), **change)
    with pytest.raises(BadRequest, match=complaint):
        engine.generate([SampleRequest(prompt_ids=(5,)), bad])


def test_a_conversation_too_long_for_the_window_is_told_apart(engine: PolicyEngine) -> None:
    fits = SampleRequest(prompt_ids=(5,) * 1023, max_tokens=1)
    assert len(engine.generate([fits])) == 1
    with pytest.raises(WindowExceeded, match=r"1023 prompt ids.*window of 1024"):
        engine.check(msgspec.structs.replace(fits, max_tokens=2))
