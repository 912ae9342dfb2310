"""The course of a training run: warm start, held-out evaluation, training, held-out evaluation again.

The course is an actor that holds no work of its own: the trainer does the work and asks it for the go of each stage, so
that a trainer that was killed and restarted finds out where it is. Evaluations are episodes of the pool like any
others; what the journal knows of them is not played again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from palmette.actors import Actor, deadline, endpoint
from palmette.benchmarks.episode import EpisodeRequest
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.outcomes import Outcome, Tally, tally
from palmette.benchmarks.pool import EpisodePool
from palmette.benchmarks.run import all_of, seed_of
from palmette.trainers.client import TrainedPolicy
from palmette.trainers.grpo_config import StepMetrics
from palmette.trainers.policy_server import LOAD_SECONDS, PolicyServer
from palmette.trainers.progress import Phase, Progress, WarmStart

BEFORE, AFTER = 0, 1
"""Sample numbers of the two evaluations."""


class _Concluded(msgspec.Struct, frozen=True):
    """To itself: nothing is left to do."""


class Course(Actor):
    """See the module's text. ``held_out`` are the ids of the evaluation's tasks."""

    def __init__(
        self,
        *,
        client: TrainedPolicy,
        held_out: Sequence[str],
        total_steps: int,
        rollouts_per_step: int,
        concurrency: int,
        episode_seconds: float,
        seed: int,
    ) -> None:
        self._client = client
        self._held_out = tuple(held_out)
        self._total_steps = total_steps
        self._rollouts_per_step = rollouts_per_step
        self._concurrency = concurrency
        self._episode_seconds = episode_seconds
        self._seed = seed
        self._phase: Phase = "starting"
        self._warm = 0.0
        self._rewards: dict[int, float | None] = {}
        self._outcomes: dict[int, list[Outcome]] = {BEFORE: [], AFTER: []}
        self._finished: dict[int, Tally] = {}

    async def started(self) -> None:
        journal = self.system.whereis("journal", Journal)
        for step in await journal.call(Journal.steps):
            self._rewards[step.step] = step.metrics.get("reward")

    # --- the trainer's questions -------------------------------------------------------------------------------------

    @endpoint
    async def prepare(self) -> None:
        """The warm policy is there; returns when the training may begin: the policy is served, and evaluated."""
        self._warm = 1.0
        return self.answer_later(self._prepare())

    @endpoint
    async def policy_served(self) -> None:
        """Returns once the policy server runs: at once, as a rule; after a kill, when it is back."""
        return self.answer_later(self._policy_served())

    @endpoint
    async def stepped(self, metrics: StepMetrics) -> None:
        """An optimiser step is done (again, perhaps, after a kill)."""
        self._rewards[metrics.step] = metrics.tally.mean_reward

    @endpoint
    async def conclude(self) -> None:
        """The trained policy is served; returns when it has been evaluated."""
        return self.answer_later(self._conclude())

    async def receive(self, message: object) -> None:
        match message:
            case WarmStart(fraction):
                self._phase = "warm start"
                self._warm = fraction
            case _Concluded():
                self.stop()
            case _:
                await super().receive(message)

    async def _policy_served(self) -> None:
        await self.system.wait_for("policy", PolicyServer, timeout=LOAD_SECONDS)

    async def _prepare(self) -> None:
        policy = await self.system.wait_for("policy", PolicyServer)
        with deadline(LOAD_SECONDS):
            await policy.call(PolicyServer.load)
        await asyncio.to_thread(self._client.open)
        self._client.connect(self.system)
        if BEFORE not in self._finished:
            # A trainer that comes back after its first step finds the evaluation in the journal.
            self._phase = "evaluating before"
            await self._evaluate(BEFORE)
        self._phase = "training"

    async def _conclude(self) -> None:
        self._phase = "evaluating after"
        if AFTER not in self._finished:
            await self._evaluate(AFTER)
        await self.system.whereis("journal", Journal).call(Journal.set_status, "completed")
        self._phase = "finished"
        self.ref.send(_Concluded())  # read after the trainer's call is answered, which this return does

    async def _evaluate(self, sample: int) -> None:
        pool = self.system.whereis("pool", EpisodePool)
        outcomes = self._outcomes[sample] = []
        todo = iter(self._held_out)

        async def worker() -> None:
            for task in todo:
                with deadline(self._episode_seconds + 60.0):
                    request = EpisodeRequest(task=task, sample=sample, seed=seed_of(self._seed, task, sample))
                    outcomes.append((await pool.call(EpisodePool.play, request)).outcome)

        await all_of([worker() for _ in range(self._concurrency)])
        self._finished[sample] = tally(outcomes)

    # --- for those who watch -----------------------------------------------------------------------------------------

    @endpoint
    async def progress(self) -> Progress:
        """The run at a glance."""
        steps = sorted(self._rewards)
        sample = AFTER if self._phase in ("evaluating after", "finished") else BEFORE
        evaluated = len(self._outcomes[BEFORE]) + len(self._outcomes[AFTER])
        return Progress(
            phase=self._phase,
            step=steps[-1] if steps else 0,
            total_steps=self._total_steps,
            rewards=tuple(self._rewards.get(step) for step in range(1, steps[-1] + 1)) if steps else (),
            warm_start=self._warm,
            before=self._finished.get(BEFORE),
            after=self._finished.get(AFTER),
            evaluated=len(self._outcomes[sample]),
            to_evaluate=len(self._held_out),
            requested=evaluated + len(steps) * self._rollouts_per_step,
        )
