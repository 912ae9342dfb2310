"""Every way in which an episode can end, reached for its own reason; and what its parts may know of each other."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.interference import Destroying, Interfered, Interference
from support.sums import SECRET, Sums, new_run, play, settings_for, solver

from palmette.actors import Actor, Ref, System
from palmette.agents.errors import ModelUnavailable, RequestRefused
from palmette.agents.react import ReactLimits
from palmette.agents.tools import Tool
from palmette.benchmarks.episode import EpisodeRequest, EpisodeSettings
from palmette.benchmarks.episode_tree import AgentActor, episode_spec
from palmette.benchmarks.journal.records import EpisodeKey
from palmette.benchmarks.outcomes import (
    AgentFailed,
    Cancelled,
    InfraFailed,
    JudgeFailed,
    Outcome,
    Scored,
    Truncated,
)
from palmette.benchmarks.task import GraderData, Task, Transcript
from palmette.machines import Machine, MachineLost
from palmette.supervisors import DynamicSupervisor


async def only(settings: EpisodeSettings, journal: str) -> Outcome:
    """The outcome of the one episode, which is the sum of all outcomes."""
    played = await play(settings, journal)
    assert played.tally.requested == 1
    assert played.tally.reward_sum == getattr(played.episodes[0].outcome, "reward", 0.0)
    return played.episodes[0].outcome


@pytest.mark.parametrize("machine", [False, True])
async def test_an_episode_with_or_without_a_machine_is_played_and_scored(tmp_path: Path, machine: bool) -> None:
    journal, run = new_run(tmp_path)
    played = await play(settings_for(run, Sums(20, machine=machine)), journal)
    assert played.tally.scored == played.tally.reward_sum == 20
    assert played.statistics.crashes == 0


async def test_a_limit_of_the_harness_truncates(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    settings = settings_for(run, Sums(1, machine=True), limits=ReactLimits(max_turns=1))
    assert await only(settings, journal) == Truncated(reason="max_turns: 1")


async def test_an_agent_that_is_not_done_by_the_episodes_deadline_is_truncated(tmp_path: Path) -> None:
    class Stuck(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            await asyncio.Event().wait()

    journal, run = new_run(tmp_path)
    settings = settings_for(run, Sums(1), Interfered(solver(), Stuck()), seconds=0.2)
    assert await only(settings, journal) == Truncated(reason="the episode's deadline of 0.2 s")


async def test_an_agent_that_crashes_beyond_its_budget_has_failed(tmp_path: Path) -> None:
    class Bug(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            raise RuntimeError("a bug in the agent")

    journal, run = new_run(tmp_path)
    bug = Bug()
    outcome = await only(settings_for(run, Sums(1), Interfered(solver(), bug)), journal)
    assert outcome == AgentFailed(reason="RuntimeError: a bug in the agent")
    assert bug.sessions == 4


def test_slow_crashes_spend_the_same_budget_as_quick_ones() -> None:
    settings = settings_for("run", Sums(1), seconds=1800.0)
    spec = episode_spec(settings, Sums(1).tasks()[0], EpisodeRequest(task="sums/0"), "x")
    assert float(str(spec.kwargs["max_seconds"])) > settings.seconds


async def test_a_machine_that_is_lost_again_and_again_is_infrastructure(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)

    def sabotage(tools: Sequence[Tool], machine: Machine | None, key: EpisodeKey, attempt: int) -> Sequence[Tool]:
        return [Destroying(each, machine) for each in tools]

    outcome = await only(settings_for(run, Sums(1, machine=True), wrap_tools=sabotage), journal)
    assert isinstance(outcome, InfraFailed)
    assert outcome.reason.startswith("machine: MachineLost: ")


async def test_a_machine_that_will_not_start_is_infrastructure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no(machine: object) -> None:
        raise MachineLost("no room on the host")

    monkeypatch.setattr("palmette.machines.local.LocalMachine.start", no)
    journal, run = new_run(tmp_path)
    outcome = await only(settings_for(run, Sums(1, machine=True)), journal)
    assert outcome == InfraFailed(reason="machine: MachineLost: no room on the host", cause="unknown")


async def test_a_tree_that_cannot_start_is_infrastructure(tmp_path: Path) -> None:
    journal, run = new_run(tmp_path)
    outcome = await only(settings_for(run, Sums(1, machine=True), machine="moon"), journal)
    assert isinstance(outcome, InfraFailed)
    assert "no machine backend for the image 'moon'" in outcome.reason


async def test_a_model_that_stays_away_is_an_outage_once_something_was_scored(tmp_path: Path) -> None:
    class Down(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if task == "sums/1":
                raise ModelUnavailable("connection refused")

    journal, run = new_run(tmp_path)
    played = await play(settings_for(run, Sums(3), Interfered(solver(), Down())), journal, concurrency=1)
    assert played.outcomes["sums/1"] == InfraFailed(reason="agent: ModelUnavailable: connection refused")
    assert played.tally.scored == 2


async def test_an_outage_that_passes_costs_nothing(tmp_path: Path) -> None:
    class Flaky(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if self.sessions < 10:
                raise ModelUnavailable("overloaded")

    journal, run = new_run(tmp_path)
    flaky = Flaky()
    outcome = await only(settings_for(run, Sums(1), Interfered(solver(), flaky)), journal)
    assert isinstance(outcome, Scored)
    assert flaky.sessions == 10, "many more restarts than the budget for bugs has"


async def test_a_request_that_is_refused_is_the_agents_own_failure_and_the_others_go_on(tmp_path: Path) -> None:
    class Picky(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if task == "sums/1":
                raise RequestRefused("I do not like this")

    journal, run = new_run(tmp_path)
    picky = Picky()
    played = await play(settings_for(run, Sums(3), Interfered(solver(), picky)), journal, concurrency=1)
    assert played.outcomes["sums/1"] == AgentFailed(reason="RequestRefused: I do not like this")
    assert (played.tally.scored, picky.sessions) == (2, 3)


async def test_a_judge_that_raises_is_asked_again_and_then_has_failed(tmp_path: Path) -> None:
    calls: list[str] = []

    async def broken(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        calls.append(task.id)
        raise KeyError("no such column")

    journal, run = new_run(tmp_path)
    outcome = await only(settings_for(run, Sums(1, judge=broken)), journal)
    assert outcome == JudgeFailed(reason="KeyError: 'no such column'")
    assert len(calls) == 4


async def test_a_judge_that_hangs_has_failed_by_its_own_deadline(tmp_path: Path) -> None:
    async def hangs(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        await asyncio.Event().wait()
        return 1.0

    journal, run = new_run(tmp_path)
    outcome = await only(settings_for(run, Sums(1, judge=hangs, timeout=0.05)), journal)
    assert outcome == JudgeFailed(reason="TimeoutError: criterion 'right' gave no verdict in 0.05 s")


async def test_a_judge_that_outlasts_the_episode_has_failed_and_the_agent_is_not_called_truncated(
    tmp_path: Path,
) -> None:
    async def hangs(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        await asyncio.Event().wait()
        return 1.0

    journal, run = new_run(tmp_path)
    outcome = await only(settings_for(run, Sums(1, judge=hangs), seconds=0.3), journal)
    assert outcome == JudgeFailed(reason="no verdict by the episode's deadline of 0.3 s")


async def test_a_score_out_of_range_is_no_reward(tmp_path: Path) -> None:
    async def generous(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        return 2.0

    journal, run = new_run(tmp_path)
    assert isinstance(await only(settings_for(run, Sums(1, judge=generous)), journal), JudgeFailed)


async def test_an_episode_that_somebody_terminates_is_cancelled(tmp_path: Path) -> None:
    class Stuck(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if task == "sums/0":
                began.set()
                await asyncio.Event().wait()

    began = asyncio.Event()

    async def terminate(system: System) -> None:
        await began.wait()
        episodes = system.whereis("episodes", DynamicSupervisor)
        (one,) = await episodes.call(DynamicSupervisor.which_children)
        await episodes.call(DynamicSupervisor.terminate_child, one.name)

    journal, run = new_run(tmp_path)
    settings = settings_for(run, Sums(2), Interfered(solver(), Stuck()))
    played = await play(settings, journal, concurrency=1, meanwhile=terminate)
    assert isinstance(played.outcomes["sums/0"], Cancelled)
    assert played.tally.scored == 1


# --- deaths in the middle --------------------------------------------------------------------------------------------


async def test_a_crashed_agent_starts_over_in_an_emptied_sandbox(tmp_path: Path) -> None:
    class Bug(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if reply == 2 and self.sessions == 1:
                raise RuntimeError("after it has written its answer")

    journal, run = new_run(tmp_path)
    settings = settings_for(run, Sums(1, machine=True), Interfered(solver(machine=True), Bug()))
    played = await play(settings, journal)  # the tool itself asserts that the sandbox is empty
    assert played.tally.reward_sum == 1
    assert played.episodes[0].attempt == 2


@pytest.mark.parametrize("when", ["before the agent", "during the agent", "during the judging"])
async def test_a_machine_that_dies_takes_agent_and_judge_with_it_and_all_is_played_again(
    tmp_path: Path, when: str
) -> None:
    machine_path = "/rollouts/episodes/sums-0-8a5c08+0/machine"
    began, judging = asyncio.Event(), asyncio.Event()
    sandboxes: list[str] = []
    systems: list[System] = []

    class Slow(Interference):
        async def __call__(self, task: str, reply: int) -> None:
            if when == "during the agent" and self.sessions == 1 and reply == 2:
                began.set()
                await asyncio.Event().wait()

    async def judge(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        assert machine is not None
        sandboxes.append((await machine.exec("pwd")).text.strip())
        if when == "during the judging" and len(sandboxes) == 1:
            judging.set()
            await machine.exec("sleep 30")
        return float((await machine.get("answer")).decode() == task.grader.answer)

    async def kill(system: System) -> None:
        systems.append(system)
        if when == "before the agent":
            await system.wait_for(machine_of(system), Actor)
        else:
            await (began if when == "during the agent" else judging).wait()
        system.whereis(machine_of(system), Actor).kill("by the test")

    def machine_of(system: System) -> str:
        found = [path for path in system.slots if path.endswith("/machine")]
        return found[0] if found else machine_path

    journal, run = new_run(tmp_path)
    slow = Slow()
    settings = settings_for(run, Sums(1, machine=True, judge=judge), Interfered(solver(machine=True), slow))
    played = await play(settings, journal, meanwhile=kill)
    assert played.tally.reward_sum == 1, "the agent's work was judged where the agent did it"
    if when != "before the agent":
        assert slow.sessions == 2, "an agent that had finished plays again: its sandbox is gone"


async def test_a_crashed_judge_is_given_the_same_transcript_and_the_agent_does_not_play_again(tmp_path: Path) -> None:
    seen: list[Transcript] = []

    async def clumsy(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        seen.append(transcript)
        if len(seen) == 1:
            raise OSError("the judge stumbles")
        return 1.0

    journal, run = new_run(tmp_path)
    watch = Interference()
    settings = settings_for(run, Sums(1, judge=clumsy), Interfered(solver(), watch))
    assert isinstance(await only(settings, journal), Scored)
    assert seen[0] is seen[1]
    assert watch.sessions == 1


# --- who may know what -----------------------------------------------------------------------------------------------


def reachable(*roots: object) -> list[object]:
    """All that can be reached by looking. Types, modules, globals and references lead into the whole program."""
    seen: dict[int, object] = {}
    todo = list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | System | Actor | Ref):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, types.FunctionType):
            todo += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
        else:
            todo += gc.get_referents(thing)
    return list(seen.values())


async def test_nothing_of_the_graders_can_be_reached_from_agent_tools_or_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []
    original = AgentActor.work

    async def looked_at(self: AgentActor) -> None:
        found.extend(reachable({key: value for key, value in vars(self).items() if key != "_cell"}))
        await original(self)

    monkeypatch.setattr(AgentActor, "work", looked_at)

    def look(tools: Sequence[Tool], machine: Machine | None, key: EpisodeKey, attempt: int) -> Sequence[Tool]:
        assert tools
        found.extend(reachable(list(tools), machine.id if machine is not None else None))
        return tools

    async def judge(task: Task, transcript: Transcript, machine: Machine | None) -> float:
        assert machine is not None
        assert task.grader.tests == SECRET
        everything = await machine.exec("cat *; env", timeout=10)
        assert SECRET not in everything.text
        return 1.0

    journal, run = new_run(tmp_path)
    played = await play(settings_for(run, Sums(1, machine=True, judge=judge), wrap_tools=look), journal)
    assert played.tally.scored == 1
    graders = [thing for thing in found if isinstance(thing, GraderData)]
    assert graders, "the public task has an empty one"
    assert all(grader == GraderData() for grader in graders)
    assert SECRET not in [thing for thing in found if isinstance(thing, str)]
