"""A machine that ends under an episode: whose doing it was decides the outcome, and whether another one is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import pytest
from support.sums import Played, Sums, new_run, play, settings_for

from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Outcome
from palmette.machines import Evidence, LocalMachine, MachineLost
from palmette.machines.evidence import Cause

Script = Callable[[int, str], Evidence | None]
"""``(number of the machine, what is done on it)`` to the evidence of its end, if it ends there."""
Play = Callable[[Script], Awaitable[tuple[Played, int]]]
"""Plays the one episode on machines that follow a script; what is left of it, and how many machines there were."""

CAUSES: tuple[Cause, ...] = get_args(Cause)
OOM = Evidence(cause="out_of_memory", detail="exit code 137", agents_doing=True)


class Scripted(LocalMachine):
    """A machine that ends when its script says so."""

    def __init__(self, owner: str, number: int, script: Script) -> None:
        super().__init__(owner)
        self._number = number
        self._script = script

    async def start(self) -> None:
        await super().start()
        self._perhaps("start")

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self._perhaps(f"put {path}")
        await super().put(path, data, mode=mode)

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        self._perhaps(f"get {path}")
        return await super().get(path, max_bytes=max_bytes)

    def _perhaps(self, doing: str) -> None:
        evidence = self._script(self._number, doing)
        if evidence is not None:
            raise MachineLost(doing, evidence)


@pytest.fixture(params=[None, "machines"], ids=["its own", "leased"])
def play_with(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    async def played(script: Script) -> tuple[Played, int]:
        made: list[Scripted] = []

        def make(image: str, owner: str) -> Scripted:
            made.append(Scripted(owner, len(made), script))
            return made[-1]

        monkeypatch.setattr("palmette.machines.actor.machine_for", make)
        journal, run = new_run(tmp_path)
        settings = settings_for(run, Sums(1, machine=True), pool=request.param, warm=0)
        return await play(settings, journal), len(made)

    return played


def outcome_of(played: Played) -> Outcome:
    (one,) = played.episodes
    return one.outcome


@pytest.mark.parametrize("when", ["put answer", "get answer"], ids=["as the agent works", "as its work is judged"])
async def test_a_machine_that_a_command_brings_down_is_the_agents_failure_and_is_not_replaced(
    play_with: Play, when: str
) -> None:
    played, machines = await play_with(lambda number, doing: OOM if doing == when else None)
    assert outcome_of(played) == AgentFailed(
        reason=f"MachineBroken: {when}: out of memory (exit code 137)", cause="out_of_memory"
    )
    assert machines == 1


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_machine_that_ends_by_itself_again_and_again_is_infrastructure_with_its_cause(
    play_with: Play, cause: Cause
) -> None:
    evidence = Evidence(cause=cause, detail="as the test says")
    played, machines = await play_with(lambda number, doing: evidence if doing == "put answer" else None)
    outcome = outcome_of(played)
    assert isinstance(outcome, InfraFailed)
    assert outcome.cause == cause
    assert outcome.reason == f"machine: MachineLost: put answer: {evidence}"
    assert machines == 4


async def test_a_machine_that_ends_by_itself_once_is_replaced_and_the_episode_is_scored(play_with: Play) -> None:
    evidence = Evidence(cause="machine_killed", detail="by somebody")
    played, machines = await play_with(lambda number, doing: evidence if (number, doing) == (0, "get answer") else None)
    assert (played.tally.scored, played.tally.reward_sum) == (1, 1.0)
    assert played.episodes[0].attempt == 2
    assert machines == 2


async def test_a_machine_that_the_agent_breaks_after_a_first_was_lost_is_the_agents_failure(play_with: Play) -> None:
    lost = Evidence(cause="daemon_gone")

    def script(number: int, doing: str) -> Evidence | None:
        return (lost if number == 0 else OOM) if doing == "put answer" else None

    played, machines = await play_with(script)
    outcome = outcome_of(played)
    assert isinstance(outcome, AgentFailed)
    assert (outcome.cause, machines) == ("out_of_memory", 2)


@pytest.mark.parametrize("play_with", [None], ids=["its own"], indirect=True)
async def test_what_kills_a_machine_before_anybody_has_used_it_is_nobody_elses_doing(play_with: Play) -> None:
    played, machines = await play_with(lambda number, doing: OOM if doing == "start" else None)
    outcome = outcome_of(played)
    assert isinstance(outcome, InfraFailed)
    assert (outcome.cause, machines) == ("out_of_memory", 4)


@pytest.mark.parametrize("play_with", ["machines"], ids=["leased"], indirect=True)
async def test_a_machine_that_is_never_to_be_had_is_infrastructure_with_the_cause_of_the_last_try(
    play_with: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palmette.machines.pool.LEASE_SECONDS", 0.2)
    quota = Evidence(cause="quota", detail="20 sandboxes are all you have")
    played, machines = await play_with(lambda number, doing: quota)
    outcome = outcome_of(played)
    assert isinstance(outcome, InfraFailed)
    assert outcome.cause == "quota"
    assert "no machine came up within 0.2 s; the last one failed: MachineLost: start: quota" in outcome.reason
    assert machines >= 1
