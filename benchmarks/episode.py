"""Episodes as plain data: what is asked for, what all episodes of a run have in common, and how one went.

An episode is one attempt of an agent at one task, judged. :mod:`palmette.benchmarks.episode_tree` plays it,
:mod:`palmette.benchmarks.pool` is whom to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from palmette.actors.cluster.needs import Needs
from palmette.agents.conversation import ModelClient
from palmette.agents.react import ReactLimits
from palmette.agents.tools import Tool
from palmette.benchmarks.benchmark import Benchmark, Dialect
from palmette.benchmarks.journal.records import EpisodeKey
from palmette.benchmarks.outcomes import Outcome
from palmette.benchmarks.task import Transcript
from palmette.machines import Machine
from palmette.supervisors import Backoff

WrapTools = Callable[[Sequence[Tool], Machine | None, EpisodeKey, int], Sequence[Tool]]
"""``(tools, machine, episode, attempt)`` to the tools of that attempt."""
WrapClient = Callable[[ModelClient, EpisodeKey, int], ModelClient]
"""``(client, episode, attempt)`` to the model client of that attempt."""


class EpisodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that somebody wants played."""

    task: str
    sample: int = 0
    """Which of the task's samples in this run; with ``task`` the episode's identity."""
    seed: int = 0

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.task, self.sample)


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went. The outcome is in the journal when this is told."""

    task: str
    sample: int
    outcome: Outcome
    transcript: Transcript | None = None
    """Of the attempt that the outcome is about; ``None`` where the agent never finished."""
    attempts: int = 1
    seconds: float = 0.0


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The part of :class:`EpisodeSettings` that an agent is given. The benchmark, which knows answers, is not in it."""

    run: str
    client: ModelClient
    limiter: str | None
    dialect: Dialect
    needs_machine: bool
    pooled: bool
    limits: ReactLimits
    seconds: float
    wrap_tools: WrapTools | None
    wrap_client: WrapClient | None


class EpisodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all episodes of a run have in common."""

    run: str
    benchmark: Benchmark
    client: ModelClient
    limiter: str | None = None
    """The registered name of the limiter that each request of an agent asks first."""
    machine: str = "local"
    pool: str | None = None
    """The registered name of a pool of machines of that image; ``None``: each episode makes its own."""
    warm: int | None = None
    """Machines that the pool keeps up for the next episodes; ``None``: a few."""
    on: Needs | None = None
    """What the hosts offer that the pool's machines live on; ``None``: they live in this process."""
    fleets: int = 1
    """Processes on such hosts that the machines are divided among."""
    limits: ReactLimits = ReactLimits()
    seconds: float = 1800.0
    """Deadline of an episode from its start, all attempts and judging included."""
    max_restarts: int = 3
    """How often in its whole life an episode's parts may be restarted for what counts (an outage does not)."""
    backoff: Backoff = Backoff(min=0.05, max=5.0, give_up_after=120.0)
    """Of agent and evaluator. ``give_up_after`` is the patience with a model that cannot be reached."""
    wrap_tools: WrapTools | None = None
    """For fault injection."""
    wrap_client: WrapClient | None = None
    """For fault injection."""

    def for_agent(self) -> AgentSettings:
        """What an agent may know of this."""
        return AgentSettings(
            run=self.run,
            client=self.client,
            limiter=self.limiter,
            dialect=self.benchmark.dialect,
            needs_machine=self.benchmark.needs_machine,
            pooled=self.pool is not None,
            limits=self.limits,
            seconds=self.seconds,
            wrap_tools=self.wrap_tools,
            wrap_client=self.wrap_client,
        )
