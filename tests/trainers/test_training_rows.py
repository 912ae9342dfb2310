"""A reward exists only in a scored row, and a row's ids are the episode's, in order."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents.conversation import Message, Tokens
from palmette.agents.transcript import Transcript, Turn
from palmette.benchmarks.outcomes import (
    AgentFailed,
    Cancelled,
    InfraFailed,
    JudgeFailed,
    Outcome,
    Scored,
    Stale,
    Truncated,
)
from palmette.trainers.rows import RowError, TrainingRow, check_staleness, training_row, unscorable

EOS = 1
ids = st.lists(st.integers(0, 261), min_size=1, max_size=6).map(tuple)
versions = st.integers(0, 50)
unscored = st.sampled_from(
    [
        Truncated(reason="r"), AgentFailed(reason="r"), InfraFailed(reason="r"), JudgeFailed(reason="r"),
        Stale(age=3), Cancelled(),
    ]
)  # fmt: skip


class Said(msgspec.Struct, frozen=True):
    heard: tuple[int, ...]
    output: tuple[int, ...]
    version: int


episodes = st.lists(st.builds(Said, ids, ids, versions), min_size=1, max_size=5)


def transcript(episode: list[Said]) -> Transcript:
    turns: list[Turn] = []
    sequence: tuple[int, ...] = ()
    for index, said in enumerate(episode):
        tokens = Tokens(
            prompt_ids=sequence + said.heard,
            output_ids=said.output,
            logprobs=tuple(-0.01 * token for token in said.output),
            policy_version=said.version,
        )
        sequence = tokens.prompt_ids + tokens.output_ids
        turns.append(Turn(index=index, heard=(), said=Message(role="assistant", content=""), tokens=tokens))
    return Transcript(turns=tuple(turns))


def row(episode: Transcript, outcome: Outcome) -> TrainingRow:
    return training_row(episode, outcome, task_id="t", group="g", eos_id=EOS)


@given(episodes, st.floats(0, 1))
def test_a_scored_row_is_the_episode_with_its_own_words_marked(episode: list[Said], reward: float) -> None:
    made = row(transcript(episode), Scored(reward=reward))
    whole = made.prompt_ids + made.completion_ids
    assert whole == sum((said.heard + said.output for said in episode), ())
    assert made.prompt_ids == episode[0].heard
    assert len(made.completion_ids) == len(made.env_mask) == len(made.logprobs)
    own = [token for token, mask in zip(made.completion_ids, made.env_mask, strict=True) if mask]
    assert tuple(own) == sum((said.output for said in episode), ())
    for token, mask, logprob in zip(made.completion_ids, made.env_mask, made.logprobs, strict=True):
        assert logprob == (-0.01 * token if mask else 0.0)
    assert made.reward == reward
    assert made.policy_version == min(said.version for said in episode)


@given(episodes, unscored)
def test_every_other_outcome_gives_a_row_without_a_reward_and_without_anything_to_learn(
    episode: list[Said], outcome: Outcome
) -> None:
    made = row(transcript(episode), outcome)
    assert made.reward is None
    assert (made.completion_ids, made.env_mask, made.logprobs) == ((EOS,), (0,), (0.0,))
    assert made.outcome == outcome
    assert row(Transcript(), outcome) == made  # whatever there is of an episode


@given(episodes.filter(lambda episode: len(episode) > 1), st.data())
def test_a_prompt_that_is_not_the_sequence_so_far_is_an_error(episode: list[Said], data: st.DataObject) -> None:
    good = transcript(episode)
    number = data.draw(st.integers(1, len(episode) - 1))
    tokens = cast(Tokens, good.turns[number].tokens)
    before = cast(Tokens, good.turns[number - 1].tokens)
    at = data.draw(st.integers(0, len(before.prompt_ids + before.output_ids) - 1))
    changed = (*tokens.prompt_ids[:at], tokens.prompt_ids[at] + 1, *tokens.prompt_ids[at + 1 :])
    turns = list(good.turns)
    turns[number] = msgspec.structs.replace(turns[number], tokens=msgspec.structs.replace(tokens, prompt_ids=changed))
    with pytest.raises(RowError, match=rf"turn {number} of t .*departs at id {at} of"):
        row(Transcript(turns=tuple(turns)), Scored(reward=1.0))


def test_a_prompt_shorter_than_the_sequence_so_far_is_an_error() -> None:
    good = transcript([Said((5, 6), (7,), 0), Said((8,), (9,), 0)])
    short = msgspec.structs.replace(cast(Tokens, good.turns[1].tokens), prompt_ids=(5, 6))
    turns = (good.turns[0], msgspec.structs.replace(good.turns[1], tokens=short))
    with pytest.raises(RowError, match="departs at id 2 of 3"):
        row(Transcript(turns=turns), Scored(reward=1.0))


def test_a_scored_episode_without_tokens_is_an_error_that_names_the_turn() -> None:
    turn = Turn(index=0, heard=(), said=Message(role="assistant", content="done 1"))
    with pytest.raises(RowError, match=r"turn 0 of t has no token ids.*policy server"):
        row(Transcript(turns=(turn,)), Scored(reward=1.0))
    with pytest.raises(RowError, match="no model turn"):
        row(Transcript(), Scored(reward=1.0))


def test_a_turn_whose_log_probabilities_do_not_fit_is_an_error() -> None:
    good = transcript([Said((5,), (6, 7), 0)])
    tokens = msgspec.structs.replace(cast(Tokens, good.turns[0].tokens), logprobs=(-1.0,))
    with pytest.raises(RowError, match="1 prompt ids, 2 output ids and 1 log-probabilities"):
        row(Transcript(turns=(msgspec.structs.replace(good.turns[0], tokens=tokens),)), Scored(reward=1.0))


@given(episodes, st.integers(0, 60), st.integers(0, 5))
def test_a_row_too_old_or_from_a_future_that_was_lost_is_stale(
    episode: list[Said], now: int, max_staleness: int
) -> None:
    fresh = row(transcript(episode), Scored(reward=1.0))
    checked = check_staleness(fresh, policy_version=now, max_staleness=max_staleness, eos_id=EOS)
    age = now - min(said.version for said in episode)
    if 0 <= age <= max_staleness:
        assert checked is fresh
    else:
        assert checked == unscorable("t", "g", Stale(age=age), eos_id=EOS)


def test_an_outcome_other_than_scored_stays_what_it_is_however_old() -> None:
    lost = unscorable("t", "g", InfraFailed(reason="r"), eos_id=EOS)
    assert check_staleness(lost, policy_version=9, max_staleness=0, eos_id=EOS) is lost
    with pytest.raises(RowError, match="scored"):
        unscorable("t", "g", Scored(reward=1.0), eos_id=EOS)


@given(episodes, unscored | st.builds(Scored, reward=st.floats(0, 1)))
def test_rows_cross_processes_unchanged(episode: list[Said], outcome: Outcome) -> None:
    made = row(transcript(episode), outcome)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=TrainingRow) == made
