"""The view: an actor beside the run that looks at it four times a second and hands what it saw to the painter.

It asks the pool (and, of a training, the course) for their statistics with a short deadline, takes every exit into its
mailbox, and never holds the run up: nobody waits for it, and it draws in another thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from palmette.actors import Actor, ActorDied, DeadlineExceeded, ExitRecord, deadline, describe
from palmette.benchmarks.journal.restarts import Restarts, incarnation_in
from palmette.benchmarks.outcomes import Tally
from palmette.benchmarks.pool import EpisodePool
from palmette.console.kernel_tree import MOST_CHILDREN, shown
from palmette.console.painter import Painter
from palmette.console.plain import count
from palmette.console.roles import RestartCounts
from palmette.console.snapshot import Snapshot
from palmette.console.stage import Stage

if TYPE_CHECKING:
    from palmette.actors import System
    from palmette.trainers.progress import Progress

EVERY = 0.25
"""Seconds between two looks."""
PATIENCE = 1.0
"""Seconds for an answer; a view that waits shows an old picture, that is all."""
_POINTS = 400
_LOG = 12


class Tick(msgspec.Struct, frozen=True):
    """Time to look."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one look brought."""

    phase: str = "starting"
    done: int = 0
    total: int | None = None
    tally: Tally = Tally()
    curve: tuple[float | None, ...] = ()


class View(Actor):
    """See the module's text."""

    def __init__(self, stage: Stage, painter: Painter) -> None:
        self._stage = stage
        self._painter = painter
        self._restarts = Restarts()
        self._counts = RestartCounts()
        self._watching = False
        self._seen = Seen(total=stage.work.planned)
        self._means: list[float | None] = []
        self._pace: tuple[str, float, int] = ("", 0.0, 0)
        """Phase, when it began, and how much was done by then."""

    async def continued(self) -> None:
        await self.receive(Tick())

    async def receive(self, message: object) -> None:
        match message:
            case Tick():
                await self._look()
                self.send_after(EVERY, Tick())
            case ExitRecord():
                self._count(self._restarts.saw(message))
            case _:
                await super().receive(message)

    def _count(self, restarts: list[ExitRecord]) -> None:
        for record in restarts:
            self._counts.add(record.path, describe(record.reason))

    async def _look(self) -> None:
        stage = self._stage
        system = stage.system
        if system is not None:
            if not self._watching:
                self._watching = True
                for record in system.exits:
                    self._count(self._restarts.saw(record))
                system.watch_exits(self.ref)
            self._count(self._restarts.settled(incarnation_in(system)))
            await self._ask(system)
        seen = self._seen
        now = time.monotonic()
        if seen.phase.rstrip("0123456789 of") != self._pace[0]:
            self._pace = (seen.phase.rstrip("0123456789 of"), now, seen.done)
        stage.snapshot = Snapshot(
            run_id=stage.run,
            title=stage.work.title,
            phase=stage.note or seen.phase,
            done=seen.done,
            total=seen.total,
            tally=seen.tally,
            curve=seen.curve,
            restarts=self._counts.listed(),
            tree=None if system is None else shown(system.tree(), root=stage.run, most_children=MOST_CHILDREN),
            elapsed=now - stage.started,
            eta=None if stage.note else self._eta(now),
            log=tuple(stage.log)[-_LOG:],
        )
        self._painter.show(stage.snapshot)

    async def _ask(self, system: System) -> None:
        try:
            with deadline(PATIENCE):
                pool = await system.whereis("pool", EpisodePool).call(EpisodePool.statistics)
                if self._stage.work.kind == "train":
                    from palmette.trainers.course import Course

                    progress = await system.whereis("course", Course).call(Course.progress)
                    self._seen = self._training(progress, pool.ended)
                    return
        except (ActorDied, DeadlineExceeded):
            return  # it is being restarted, or has more to do than to talk: the tree shows which
        ended = pool.ended
        self._means.append(ended.mean_reward)
        if len(self._means) > _POINTS:
            self._means = self._means[::2]
        self._seen = Seen(
            phase=f"{count(pool.running, 'episode')} under way",
            done=ended.requested,
            total=self._stage.work.planned,
            tally=ended,
            curve=tuple(self._means),
        )

    def _training(self, progress: Progress, ended: Tally) -> Seen:
        p = progress
        match p.phase:
            case "warm start":
                phase, done, total = "warm start", round(100 * p.warm_start), 100
            case "evaluating before" | "evaluating after":
                when = p.phase.rpartition(" ")[2]
                phase, done, total = f"held-out episodes, {when} training", p.evaluated, p.to_evaluate
            case "training" | "finished":
                phase, done, total = f"GRPO step {p.step} of {p.total_steps}", p.step, p.total_steps
            case "starting":
                phase, done, total = "starting", 0, None
        return Seen(phase=phase, done=done, total=total, tally=ended, curve=p.rewards)

    def _eta(self, now: float) -> float | None:
        """Seconds left in this phase, at the pace since it began."""
        _, since, before = self._pace
        done, total = self._seen.done, self._seen.total
        if total is None or done <= before or now - since < 2.0 or done >= total:
            return None
        return (now - since) / (done - before) * (total - done)
