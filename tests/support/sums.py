"""A benchmark of sums, and a run of it in one call: for tests of what happens around episodes.

Task *i* asks for the number *i*. Without a machine the agent says it; with one it writes it into the file ``answer``
with its tool, and the judge reads it there, so that a verdict shows in which sandbox it was reached.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from palmette.actors import System, SystemStatistics
from palmette.actors.heartbeat import Heartbeat
from palmette.agents.conversation import Completion, Message, ModelClient, ToolCall
from palmette.agents.scripted import Reply, ScriptedClient
from palmette.agents.tools import Tool, tool
from palmette.benchmarks import CriterionScore, Rubric
from palmette.benchmarks.benchmark import Dialect
from palmette.benchmarks.episode import EpisodeRequest, EpisodeSettings
from palmette.benchmarks.journal import EpisodeEnded, JournalStore
from palmette.benchmarks.outcomes import Outcome, Tally
from palmette.benchmarks.run import journal_spec, plan_tree, rollouts_spec
from palmette.benchmarks.task import GraderData, Task, Transcript
from palmette.machines import Machine
from palmette.supervisors import Backoff, ChildSpec, Supervisor

SECRET = "the grader's own"
Judge = Callable[[Task, Transcript, Machine | None], Awaitable[float]]


async def right(task: Task, transcript: Transcript, machine: Machine | None) -> float:
    """1 for the number that was asked for."""
    answer = transcript.answer if machine is None else (await machine.get("answer")).decode()
    return float(answer == task.grader.answer)


class Sums:
    """``judge`` is the one criterion."""

    name = "sums"
    dialect: Dialect = "native"

    def __init__(self, count: int, *, machine: bool = False, judge: Judge = right, timeout: float = 30.0) -> None:
        self.needs_machine = machine
        self._tasks = tuple(
            Task(
                id=f"sums/{number}",
                prompt=f"What is {number}?",
                files={"question": str(number).encode()} if machine else {},
                turns=4,
                grader=GraderData(answer=str(number), tests=SECRET, extra={"secret": SECRET}),
            )
            for number in range(count)
        )
        self._rubric = Rubric([_Criterion(judge)], timeout=timeout)

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def rubric(self, task: Task) -> Rubric:
        return self._rubric

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        if machine is None:
            return ()

        async def write(answer: str) -> str:
            """Write the answer."""
            assert await machine.list() == ["question"], "an attempt begins in an emptied sandbox"
            await machine.put("answer", answer.encode())
            return "written"

        return (tool(write),)

    def replies(self, task: Task, field: str) -> Sequence[str]:
        raise KeyError(field)


class _Criterion:
    name = "right"
    weight = 1.0

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        return CriterionScore(name=self.name, score=await self._judge(task, transcript, machine))


def solver(*, machine: bool = False) -> ScriptedClient:
    """Knows the answers."""

    def replies(task: str) -> list[Reply]:
        number = task.partition("/")[2]
        return [write(number), "written down"] if machine else [number]

    return ScriptedClient(replies)


def write(answer: str) -> Completion:
    """A reply that calls the tool."""
    call = ToolCall(id="1", name="write", arguments=json.dumps({"answer": answer}))
    return Completion(message=Message(role="assistant", content="", tool_calls=(call,)), stop="tool_calls")


class Played(msgspec.Struct, frozen=True):
    """What is left of a run."""

    episodes: list[EpisodeEnded]
    tally: Tally
    statistics: SystemStatistics
    crashes: list[str]
    """Of actors, in order: ``path: reason``."""

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return {episode.task: episode.outcome for episode in self.episodes}

    @property
    def scores(self) -> dict[tuple[str, int], object]:
        return {(e.task, e.sample): getattr(e.outcome, "reward", e.outcome) for e in self.episodes}


def settings_for(run: str, benchmark: Sums, client: ModelClient | None = None, **changes: object) -> EpisodeSettings:
    """Settings with hardly any waiting in them."""
    settings = EpisodeSettings(
        run=run,
        benchmark=benchmark,
        client=client or solver(machine=benchmark.needs_machine),
        backoff=Backoff(min=0.001, max=0.01, give_up_after=0.2),
        seconds=30.0,
    )
    return msgspec.structs.replace(settings, **changes)


def new_run(folder: Path) -> tuple[str, str]:
    """A journal's URL, and a run in it."""
    url = f"sqlite:///{folder}/runs.db"
    with JournalStore(url) as store:
        return url, store.create_run("sums", {}).id


async def play(
    settings: EpisodeSettings,
    journal: str,
    *,
    concurrency: int = 8,
    samples: int = 1,
    meanwhile: Callable[[System], Awaitable[None]] | None = None,
    timeout: float = 30.0,
    cluster: str | None = None,
    heartbeat: Heartbeat | None = None,
) -> Played:
    """Play all tasks to the end of the tree, with ``meanwhile`` beside it."""
    plan = [
        EpisodeRequest(task=task.id, sample=sample) for task in settings.benchmark.tasks() for sample in range(samples)
    ]
    tree = plan_tree(settings, plan, concurrency=concurrency, journal=journal)
    crashes: list[str] = []
    async with asyncio.timeout(timeout):
        async with System.start(tree, kill_grace=0.2, cluster=cluster, heartbeat=heartbeat) as system:
            before = len(system.slots)
            beside = None if meanwhile is None else asyncio.ensure_future(meanwhile(system))
            try:
                await system.wait_ended()
            finally:
                if beside is not None:
                    beside.cancel()
                    await asyncio.wait([beside])
                    if not beside.cancelled():
                        beside.result()
                crashes += [str(record) for record in system.exits if "shutdown" not in str(record)]
            statistics = system.statistics()
            assert len(system.slots) <= before, sorted(system.slots)
    return ended(settings.run, journal, statistics, crashes)


def ended(run: str, journal: str, statistics: SystemStatistics, crashes: list[str]) -> Played:
    """What the journal has, checked against itself."""
    with JournalStore(journal) as store:
        episodes, tally = store.episodes(run), store.tally(run)
    keys = [(episode.task, episode.sample) for episode in episodes]
    assert len(keys) == len(set(keys)) == tally.requested
    return Played(episodes=episodes, tally=tally, statistics=statistics, crashes=crashes)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look at every turn of the loop; whoever calls has a deadline."""
    while not await condition():  # noqa: ASYNC110 - what is looked at has no event
        await asyncio.sleep(0)


def pool_tree(settings: EpisodeSettings, journal: str, *, concurrency: int = 4) -> ChildSpec[Supervisor]:
    """Journal and pool alone: the test asks for episodes itself."""
    return Supervisor.spec(
        strategy="rest_for_one", children=[journal_spec(journal, settings.run), rollouts_spec(settings, concurrency)]
    )
