"""Policy directories appear whole, and weights travel exactly."""

# PyTorch's annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from palmette.trainers import policy
from palmette.trainers.policy import PolicyConfig, create, load_model, load_weights, weights_to_bytes

TINY = PolicyConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, three = (create(tmp_path / name, seed=seed, config=TINY) for name, seed in zip("abc", (1, 1, 2)))  # noqa: B905
    assert torch.equal(torch.rand(1), expected)
    assert same(load_model(one), load_model(two))
    assert not same(load_model(one), load_model(three))


def test_the_default_policy_has_116_thousand_parameters(policy_dir: Path) -> None:
    assert load_model(policy_dir).num_parameters() == 116_160


def test_weights_arrive_bit_by_bit(tmp_path: Path) -> None:
    source, target = (load_model(create(tmp_path / str(seed), seed=seed, config=TINY)) for seed in (1, 2))
    load_weights(target, weights_to_bytes(source))
    assert same(source, target)


def test_tied_weights_are_sent_once_and_stay_tied() -> None:
    config = Qwen2Config(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    source, target = Qwen2ForCausalLM(config), Qwen2ForCausalLM(config)
    load_weights(target, weights_to_bytes(source))
    assert same(source, target)
    assert target.lm_head.weight.data_ptr() == target.model.embed_tokens.weight.data_ptr()


def test_weights_of_another_shape_are_refused_and_change_nothing(tmp_path: Path) -> None:
    target = load_model(create(tmp_path / "a", seed=1, config=TINY))
    before = weights_to_bytes(target)
    wide = PolicyConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    deep = PolicyConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1)
    for name, config, complaint in (("b", wide, "shape"), ("c", deep, "another architecture")):
        other = weights_to_bytes(load_model(create(tmp_path / name, seed=2, config=config)))
        with pytest.raises(ValueError, match=complaint):
            load_weights(target, other)
    with pytest.raises(ValueError, match="safetensors"):
        load_weights(target, before[: len(before) // 2])
    assert weights_to_bytes(target) == before


def test_an_existing_directory_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine exists already"):
        create(tmp_path / "mine", seed=0, config=TINY)


def test_what_fails_halfway_leaves_nothing_and_a_dead_writers_remains_are_replaced(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        policy.write_whole(tmp_path / "p", killed)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".p.partial").mkdir()
    (tmp_path / ".p.partial" / "half").touch()
    policy.write_whole(tmp_path / "p", lambda folder: (folder / "whole").touch())
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "whole"]


def test_a_directory_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_model(tmp_path)
