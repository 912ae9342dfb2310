"""Packing records and shortening prompts are exact inverses of unpacking and lengthening, on every database."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palmette.agents.conversation import Message, Tokens
from palmette.benchmarks import AgentFailed, Scored, Turn
from palmette.benchmarks.journal import EpisodeEnded, EpisodeKey, Event, JournalStore, TurnSaid
from palmette.benchmarks.journal.packing import BLOB_CHARACTERS, pack, references, unpack
from palmette.benchmarks.journal.tokens import AttemptKey, Chains, Link, lengthen, shorten

texts = st.text(st.characters(), max_size=30) | st.sampled_from(["$blob", "\ud800", "x" * (BLOB_CHARACTERS + 1)])
ids = st.lists(st.integers(0, 3), max_size=6).map(tuple)


@given(texts, texts, st.lists(st.floats(allow_nan=False), max_size=4))
def test_a_turn_is_unpacked_as_it_was(heard: str, said: str, logprobs: list[float]) -> None:
    sampled = Tokens(prompt_ids=(1,), output_ids=(2,), logprobs=tuple(logprobs), policy_version=0)
    turn = Turn(
        index=0,
        heard=(Message(role="user", content=heard), Message(role="tool", content=heard, tool_call_id=said)),
        said=Message(role="assistant", content=said),
        tokens=sampled,
    )
    blobs: dict[str, bytes] = {}
    text = pack(turn, blobs)
    assert references([text]) == set(blobs)
    assert unpack(text, Turn, blobs) == turn


@given(st.lists(st.tuples(texts, texts, st.floats(allow_nan=False)), min_size=1, max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_database_gives_back_every_text_and_number(store: JournalStore, said: list[tuple[str, str, float]]) -> None:
    run = store.create_run("trail", {}).id
    turns = [
        Turn(
            index=index,
            heard=(Message(role="user", content=heard),),
            said=Message(role="assistant", content=answer),
            tokens=Tokens(prompt_ids=(index,), output_ids=(2,), logprobs=(number,), policy_version=0),
        )
        for index, (heard, answer, number) in enumerate(said)
    ]
    ends = [
        EpisodeEnded(
            run=run, task="t", sample=sample, attempt=0, answer=answer, started=abs(number), finished=1.1, seconds=0.1,
            outcome=AgentFailed(reason=heard) if sample % 2 else Scored(reward=0.1),
        )
        for sample, (heard, answer, number) in enumerate(said)
    ]  # fmt: skip
    store.commit([TurnSaid(run=run, task="t", sample=0, attempt=0, turn=turn) for turn in turns])
    store.commit([*ends, *(Event(run=run, at=number, kind="exit", reason=heard) for heard, _, number in said)])
    assert store.turns(run, "t", 0) == turns
    assert store.episodes(run) == ends
    assert store.episode(run, EpisodeKey("t", 0)) == ends[0]
    assert [event.at for event in store.events(run)] == [number for *_, number in said]


@given(texts)
def test_a_bare_text_is_unpacked_as_it_was(text: str) -> None:
    blobs: dict[str, bytes] = {}
    assert unpack(pack(text, blobs), str, blobs) == text


@given(st.lists(st.tuples(ids, ids, st.booleans()), max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_prompts_are_lengthened_as_they_were_whatever_was_forgotten(
    drawn: list[tuple[tuple[int, ...], tuple[int, ...], bool]], forgotten: int, gap: int
) -> None:
    turns: list[Turn] = []
    for place, (prompt, output, continues) in enumerate(drawn):
        before = turns[-1].tokens if turns else None
        if continues and before is not None:
            prompt = before.prompt_ids + before.output_ids + prompt
        sampled = Tokens(prompt_ids=prompt, output_ids=output, logprobs=(), policy_version=0)
        index = place if place < gap else place + 1
        turns.append(Turn(index=index, heard=(), said=Message(role="assistant", content=""), tokens=sampled))
    link: Link | None = None
    stored: list[tuple[Turn, int]] = []
    for place, turn in enumerate(turns):
        short, kept, link = shorten(turn, None if place == forgotten else link)
        stored.append((short, kept))
    assert list(lengthen(stored)) == turns


def test_the_attempt_that_was_silent_longest_is_forgotten_first() -> None:
    chains = Chains(remembered=10)
    keys = [AttemptKey("r", f"t/{number}", 0, 0) for number in range(4)]
    chains.update((key, Link(0, (1, 2, 3, 4))) for key in keys[:2])
    chains.update([(keys[0], Link(1, (1, 2, 3, 4, 5)))])
    chains.update([(keys[2], Link(0, (1, 2, 3, 4)))])
    assert [chains.get(key) is not None for key in keys] == [True, False, True, False]
    chains.update([(keys[0], None), (keys[3], None)])
    chains.update([(keys[3], Link(0, tuple(range(6))))])
    assert [chains.get(key) is not None for key in keys] == [False, False, True, True]
