"""A run of a benchmark, as one tree::

    /                     rest_for_one, ends when the runner has finished
    ├── journal           the run store's owner
    ├── models            the limiter, which all agents ask before each request (where a provider is asked)
    ├── rollouts          one_for_all
    │   ├── machines      warm ones, and no more at a time than the provider can bear (where not `local`); in a
    │   │                 cluster they live on its members
    │   ├── pool          plays episodes, one result each
    │   └── episodes      dynamic: one tree per episode under way
    └── runner            asks for every episode of the plan that the journal does not know as ended

``kill -9`` the whole program at any moment, start the same tree again (``palmette resume``), and every task ends
exactly once: the journal is the only memory.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Coroutine, Sequence

import msgspec

from palmette.actors import Actor, TaskDone, deadline
from palmette.actors.cluster.needs_text import parse_needs
from palmette.agents.conversation import ModelClient
from palmette.agents.limiter import Limiter, LimiterSettings
from palmette.agents.names import model_client, parse_agent, parse_model
from palmette.agents.openai_client import OpenAIClient
from palmette.agents.react import ReactLimits
from palmette.benchmarks.benchmark import Benchmark
from palmette.benchmarks.catalog import load
from palmette.benchmarks.episode import EpisodeRequest, EpisodeSettings
from palmette.benchmarks.errors import BadOption
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import EpisodeKey
from palmette.benchmarks.pool import EpisodePool
from palmette.machines import machine_pool
from palmette.supervisors import Backoff, ChildSpec, DynamicSupervisor, Supervisor, child

POOL = "machines"
"""The name of the pool of machines."""
LIMITER = "limiter"
"""The name of the limiter."""
WARM = 2
"""Machines kept up beyond those in use, unless the config says otherwise."""

PATIENT = Backoff(min=0.05, max=2.0, give_up_after=20.0)
"""For what fails because something else is being restarted, or is locked for a moment."""


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run is made from; it stands in the journal, so it holds no secret."""

    benchmark: str
    data: str | None = None
    options: dict[str, object] = {}
    """For the benchmark's constructor."""
    agent: str = "react"
    model: str | None = None
    base_url: str | None = None
    machine: str = "local"
    warm: int | None = None
    """Machines that are kept up for the next episodes; ``None``: as many as suit the image."""
    concurrency: int = 16
    limit: int | None = None
    """Only the first so many tasks."""
    samples: int = 1
    """Episodes per task."""
    seed: int = 0
    episode_seconds: float = 1800.0
    cluster: str | None = None
    """The head (``HOST:PORT``) of the cluster whose members the machines live on; ``None``: they live here."""
    fleets: int | None = None
    """Processes there that the machines are divided among; ``None``: one for each member."""
    needs: tuple[str, ...] = ()
    """What a member must offer for that, each as ``KEY=VALUE``."""
    requests_per_minute: float | None = None
    """Of all agents together, as are the next two."""
    tokens_per_minute: float | None = None
    dollars: float | None = None
    """What a start of this run may spend on its model; then the run ends."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "samples", "limit", "fleets"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise BadOption(f"--{name} is at least 1, got {value}")
        if self.warm is not None and self.warm < 0:
            raise BadOption(f"--warm is at least 0, got {self.warm}")
        if self.episode_seconds <= 0:
            raise BadOption(f"--episode-seconds is more than 0, got {self.episode_seconds:g}")
        if self.cluster is None and (self.fleets is not None or self.needs):
            raise BadOption("--fleets and --needs are about a cluster's members; say which: --cluster HOST:PORT")
        try:
            parse_needs(self.needs)
        except ValueError as error:
            raise BadOption(f"--needs: {error}") from error
        for name in ("requests_per_minute", "tokens_per_minute", "dollars"):
            most: float | None = getattr(self, name)
            if most is not None and not most > 0:
                raise BadOption(f"--{name.replace('_', '-')} is more than 0, got {most:g}")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can be started: every name in its config is known to exist."""

    config: RunConfig
    benchmark: Benchmark
    client: ModelClient
    plan: tuple[EpisodeRequest, ...]
    fleets: int = 1
    """Where ``config.cluster`` says so: the processes on its members that machines are divided among."""


def prepare(config: RunConfig) -> Prepared:
    """Load what ``config`` names. Blocking: it reads the benchmark's files and imports the model's SDK.

    Raises:
        BenchmarkError, AgentError, MachineError: with one sentence for the person who wrote the config.
    """
    from palmette.machines import machine_for

    machine_for(config.machine, owner="check")
    agent = parse_agent(config.agent)
    model = None if config.model is None else parse_model(config.model, base_url=config.base_url)
    benchmark = load(config.benchmark, config.data, **config.options)
    tasks = list(benchmark.tasks())[: config.limit]
    by_id = {task.id: task for task in tasks}
    client = model_client(
        agent, model, lambda task_id, field: benchmark.replies(by_id[task_id], field), first_task=tasks[0].id
    )
    plan = tuple(
        EpisodeRequest(task=task.id, sample=sample, seed=seed_of(config.seed, task.id, sample))
        for task in tasks
        for sample in range(config.samples)
    )
    return Prepared(config=config, benchmark=benchmark, client=client, plan=plan, fleets=config.fleets or 1)


def seed_of(seed: int, task: str, sample: int) -> int:
    """The sampling seed of one episode: a function of nothing but its identity, so that a resumed run samples alike."""
    return random.Random(zlib.crc32(f"{seed}/{task}/{sample}".encode())).randrange(2**31)


def run_tree(prepared: Prepared, *, run: str, journal: str) -> ChildSpec[Supervisor]:
    """The tree of run ``run``, whose row is in the journal at the URL ``journal`` already."""
    config = prepared.config
    far = prepared.benchmark.needs_machine and config.cluster is not None
    pooled = prepared.benchmark.needs_machine and (far or config.warm or config.machine != "local")
    settings = EpisodeSettings(
        run=run,
        benchmark=prepared.benchmark,
        client=prepared.client,
        limiter=LIMITER if isinstance(prepared.client, OpenAIClient) else None,
        machine=config.machine,
        pool=POOL if pooled else None,
        warm=config.warm,
        on=parse_needs(config.needs) if far else None,
        fleets=prepared.fleets if far else 1,
        limits=ReactLimits(seconds=config.episode_seconds),
        seconds=config.episode_seconds + 60.0,
    )
    limits = LimiterSettings(
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        dollars=config.dollars,
    )
    return plan_tree(settings, prepared.plan, concurrency=config.concurrency, journal=journal, limits=limits)


def plan_tree(
    settings: EpisodeSettings,
    plan: Sequence[EpisodeRequest],
    *,
    concurrency: int,
    journal: str,
    limits: LimiterSettings | None = None,
) -> ChildSpec[Supervisor]:
    """The tree that plays ``plan``; :func:`run_tree` for those who have settings of their own.

    ``limits`` are those of the limiter, where ``settings`` name one.
    """
    runner = child(
        Runner,
        tuple(plan),
        concurrency,
        settings.seconds,
        name="runner",
        restart="transient",
        significant=True,
        backoff=PATIENT,
        rules={"retryable": "backoff"},  # the pool is being restarted: no fault of the runner's
    )
    return Supervisor.spec(
        name="run",
        strategy="rest_for_one",
        auto_shutdown="any_significant",
        max_restarts=3,
        max_seconds=60.0,
        children=[
            journal_spec(journal, settings.run),
            *([] if settings.limiter is None else [models_spec(settings.limiter, limits or LimiterSettings())]),
            rollouts_spec(settings, concurrency),
            runner,
        ],
    )


def models_spec(limiter: str, limits: LimiterSettings) -> ChildSpec[Supervisor]:
    """What agents need for their models. A limiter that is started again costs nobody else a restart."""
    return Supervisor.spec(name="models", children=[child(Limiter, limits, name=limiter)])


def journal_spec(url: str, run: str) -> ChildSpec[Journal]:
    """The journal of run ``run`` in the store at ``url``. Nobody else's restart helps where the disk is full."""
    return child(
        Journal,
        url,
        run,
        name="journal",
        shutdown=30.0,
        backoff=PATIENT,
        rules={"JournalUnavailable": "backoff", "JournalFull": "escalate", "JournalCorrupt": "escalate"},
    )


def rollouts_spec(settings: EpisodeSettings, concurrency: int) -> ChildSpec[Supervisor]:
    """What plays episodes. It needs a journal before it, and gives up for good when it gives up."""
    children: list[ChildSpec[Actor]] = [
        child(EpisodePool, settings, concurrency, name="pool", rules={"RunAborted": "escalate"}),
        DynamicSupervisor.spec(name="episodes"),
    ]
    if settings.pool is not None:
        warm = min(concurrency, WARM) if settings.warm is None else settings.warm
        machines = machine_pool(
            settings.machine,
            settings.run,
            warm=warm,
            most=concurrency + warm,
            register=settings.pool,
            on=settings.on,
            fleets=settings.fleets,
        )
        children.insert(0, machines)
    return Supervisor.spec(
        name="rollouts", strategy="one_for_all", rules={"max_restarts": "escalate"}, children=children
    )


class Runner(Actor):
    """Asks for the episodes of a plan, and ends when all have ended."""

    def __init__(self, plan: Sequence[EpisodeRequest], concurrency: int, seconds: float) -> None:
        self._plan = plan
        self._concurrency = concurrency
        self._seconds = seconds

    async def continued(self) -> None:
        self.start_task(self._drive(), tag="drive")

    async def receive(self, message: object) -> None:
        if isinstance(message, TaskDone):
            await self.system.whereis("journal", Journal).call(Journal.set_status, "completed")
            self.stop()
        else:
            await super().receive(message)

    async def _drive(self) -> None:
        pool = self.system.whereis("pool", EpisodePool)
        journal = self.system.whereis("journal", Journal)
        over = {EpisodeKey(*key) for key in await journal.call(Journal.finished)}
        todo = iter([request for request in self._plan if request.key not in over])

        async def worker() -> None:
            for request in todo:
                with deadline(self._seconds + 60.0):  # the pool's own deadline for an episode comes first
                    await pool.call(EpisodePool.play, request)

        await all_of([worker() for _ in range(self._concurrency)])


async def all_of(works: Sequence[Coroutine[object, object, None]]) -> None:
    """Run all to their ends; the first failure cancels the others and is raised as itself."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
