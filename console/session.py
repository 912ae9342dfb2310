"""Plays one run from its start (or resumption) to its end, with everything that a person at a terminal expects.

::

    the console's tree                          the run's tree
    /            one_for_one                    /            as benchmarks and trainers describe it
    ├── lease    renews the claim on the run    ├── journal
    ├── control  answers `palmette tree`        ├── …
    └── screen   temporary
        └── view

Two systems on one loop: what breaks in the console leaves the run alone, except for a lost lease, which ends it.
Around the loop, in plain blocking code: leftovers of killed runs on this host are removed, the lease is taken and given
back, and the run's status is written. Leftovers elsewhere (on a daemon, a host, a provider) are removed on the loop,
before the run's tree is started: its machines will want the same connections.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress

import msgspec

from palmette.actors import Killed, System
from palmette.actors.running import run as run_program
from palmette.actors.runtime_dir import log_path, sweep
from palmette.benchmarks.errors import JournalError
from palmette.benchmarks.journal import JournalStore, Run
from palmette.console import leases
from palmette.console.control import Control
from palmette.console.failures import say
from palmette.console.interrupts import Interrupts
from palmette.console.painter import Lines, Painter, Screen
from palmette.console.stage import Stage
from palmette.console.terminal import is_interactive, logging_to, owned_terminal
from palmette.console.view import View
from palmette.console.work import Work
from palmette.machines import ReapReport, reap
from palmette.machines.leftovers import reap_before_run
from palmette.supervisors import Backoff, ChildSpec, Supervisor, child


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended."""

    run: str
    code: int
    """0, or the exit code that an interruption asks for."""
    seconds: float


def start(store: JournalStore, work: Work, *, run_id: str | None = None) -> Run:
    """Enter a new run in the journal. Blocks."""
    return store.create_run(work.benchmark, work.config, run_id=run_id)


def play(work: Work, run: Run, journal: str) -> Ending:
    """Play ``run`` until it has ended or somebody interrupts it. Blocks; only for the main thread.

    Raises:
        RunBusy: another process plays it.
        ActorDied, StartFailed: its tree gave up.
    """
    reaped = tidy()
    with JournalStore(journal, create=False) as store:
        stage = Stage(run=run.id, work=work, journal=journal, ended_before=store.tally(run.id).requested)
        with _claimed(store, run.id, journal) as holder:
            store.set_status(run.id, "running")
            if reaped.directories or reaped.processes:
                stage.log.append(
                    f"removed what killed runs had left: sandboxes {len(reaped.directories)}, "
                    f"processes {reaped.processes}"
                )
            if stage.ended_before:
                stage.log.append(f"{stage.ended_before:,} of {work.planned:,} episodes had ended before; going on")
            with _shown(stage) as painter:
                code = run_program(_play(stage, painter, holder))
        if stage.view_lost:
            say("the live view failed, and the run went on without it; please report this")
        return Ending(run=run.id, code=code, seconds=time.monotonic() - stage.started)


def tidy() -> ReapReport:
    """Remove what killed commands have left: sandboxes with their processes, sockets, logs. Blocks."""
    sweep()
    return reap()


async def tidy_elsewhere(image: str | None) -> list[str]:
    """Remove what killed commands have left where machines of ``image`` run; what to tell a person about it."""
    reaped = None if image is None else await reap_before_run(image)
    if reaped is None:
        return []
    removed = f"{reaped.backend}: removed {len(reaped.removed)} machines that killed runs had left"
    return ([removed] if reaped.removed else []) + [
        f"{reaped.backend}: what killed runs have left is still there: {problem}" for problem in reaped.failed
    ]


@contextmanager
def _claimed(store: JournalStore, run: str, journal: str) -> Generator[str]:
    """Hold the run's lease inside the block, and leave the right status behind it."""
    holder = leases.holder_of(run)
    leases.take(store, run, holder)
    try:
        yield holder
    except BaseException as error:
        # A store that is full or gone has been told of already, by the failure that brought us here; a lease that
        # could not be given back is a dead process's lease in a moment.
        with suppress(JournalError):
            store.set_status(run, "cancelled" if isinstance(error, KeyboardInterrupt) else "failed")
            leases.release(store, run, holder)
        raise
    else:
        if store.get_run(run).status != "completed":
            store.set_status(run, "cancelled")
        leases.release(store, run, holder)


@contextmanager
def _shown(stage: Stage) -> Generator[Painter]:
    """A painter on whatever standard error is, and the terminal kept free of everything else."""
    with ExitStack() as stack:
        if is_interactive():
            terminal = stack.enter_context(owned_terminal(log_path(stage.run)))
            stack.enter_context(logging_to(stage.log))
            painter = Painter(Screen(terminal))
        else:
            painter = Painter(Lines(sys.stderr))
        stack.callback(painter.close)
        yield painter


async def _play(stage: Stage, painter: Painter, holder: str) -> int:
    """The run, with its console beside it; the exit code."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stage.note = "stopping (Ctrl-C again to hurry)"
        playing.cancel()

    def hurry() -> None:
        stage.note = "killing"
        root = None if stage.system is None else stage.system.slots["/"].target
        if root is not None:
            root.kill(Killed("interrupted twice"))

    interrupts = Interrupts(on_first=stop, on_second=hurry)
    stage.stop = interrupts.interrupt
    playing = loop.create_task(_run(stage))
    try:
        with interrupts.installed():
            async with System.start(console_tree(stage, painter, holder), name="console") as console:
                await asyncio.wait([playing])
                screen = console.slots.get("/screen")
                stage.view_lost = screen is None or screen.target is None
    finally:
        # Reached with the run under way only when the console itself gave up, for a lost lease.
        playing.cancel()
        await asyncio.wait([playing])
        await stage.work.close()
    if not playing.cancelled():
        playing.result()
    if interrupts.code is not None and not playing.cancelled():
        return 0  # it had ended by itself when the signal came
    return interrupts.code or 0


async def _run(stage: Stage) -> None:
    for line in await tidy_elsewhere(stage.work.machine):
        stage.log.append(line)
        if not is_interactive():
            say(line)
    tree = stage.work.tree(stage.run, stage.journal)
    async with System.start(tree, name=stage.run, cluster=stage.work.cluster) as system:
        stage.system = system
        await system.wait_ended()


def console_tree(stage: Stage, painter: Painter, holder: str) -> ChildSpec[Supervisor]:
    """The tree beside the run's."""
    slowly = Backoff(min=0.5, max=10.0)
    return Supervisor.spec(
        name="console",
        max_restarts=10,
        max_seconds=60.0,
        children=[
            child(
                leases.LeaseKeeper,
                stage.journal,
                stage.run,
                holder,
                name="lease",
                backoff=slowly,
                rules={"LeaseHeld": "escalate", "retryable": "backoff", "JournalFull": "backoff"},
            ),
            child(Control, stage, name="control", backoff=slowly),
            # Temporary: a view that breaks again and again is given up, and the run goes on without it.
            Supervisor.spec(name="screen", restart="temporary", children=[child(View, stage, painter, name="view")]),
        ],
    )
