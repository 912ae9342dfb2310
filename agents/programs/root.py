"""Running a program: as a child of the one that calls it, or as the root of a system of its own."""

from __future__ import annotations

import asyncio
import re
import secrets

from palmette.actors import Actor, ActorDied, System
from palmette.actors.ending import settle
from palmette.agents.programs.actor import PROGRAM, ProgramActor
from palmette.agents.programs.decorator import Call
from palmette.agents.programs.errors import NoProgram
from palmette.agents.programs.handle import Handle
from palmette.agents.programs.log import Log
from palmette.agents.programs.record import Record
from palmette.agents.programs.starting import name_of, spec_for
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.supervisors import ChildSpec

_NOT_IN_AN_OWNER = re.compile(r"[^A-Za-z0-9_-]")


def here() -> ProgramActor:
    """The program whose code is running. Raises NoProgram."""
    program = PROGRAM.get()
    if program is None:
        raise NoProgram("no program runs here; call this in the body of an @program function, or in what it started")
    if program.is_over:
        raise NoProgram(f"the program {program.path} has ended; what it left running can start nothing")
    return program


def spawn_call(host: ProgramActor, call: Call) -> Handle[object]:
    """Start a program below ``host``.

    Raises:
        ValueError: ``host`` has a child of that name.
        BadSpec: an option makes no sense.
    """
    name = host.free_name(name_of(call), exact=call.program.set.name is not None)
    spec, record = spec_for(call, name, f"{host.path}/{name}", owner=host.owner, host=host, log=host.surroundings.log)
    host.promise(name, record)
    host.ref.cast(ProgramSupervisor.admit, spec, record)
    return Handle(host.ref, spec, record, call)


async def run_here(call: Call) -> object:
    """Run a program to its end, below the present one, or as a root."""
    return await _run_root(call) if PROGRAM.get() is None else await _run_nested(here(), call)


async def _run_nested(host: ProgramActor, call: Call) -> object:
    handle = spawn_call(host, call)
    try:
        return await handle.result()
    except asyncio.CancelledError:
        handle.cancel()
        if not host.is_over:  # one that ends waits for this code first, and ends its children itself
            await settle([asyncio.ensure_future(handle.ended())])
        raise


async def _run_root(call: Call) -> object:
    options = call.program.set
    name = name_of(call)
    run = f"{name}-{secrets.token_hex(2)}"
    log = Log()
    spec, record = spec_for(call, name, f"/{name}", owner=_NOT_IN_AN_OWNER.sub("_", run), host=None, log=log)
    tree = ProgramSupervisor.spec(name="programs", max_restarts=options.max_restarts, max_seconds=options.max_seconds)
    try:
        async with System.start(tree, name=run) as system:
            root = system.ref_at("/", ProgramSupervisor)
            if options.control and not _is_simulated():
                await root.call(ProgramSupervisor.admit, _control(_NOT_IN_AN_OWNER.sub("_", run), record, log), None)
            await root.call(ProgramSupervisor.admit, spec, record)
            await record.until_over()
    except ActorDied:
        if not record.is_over:
            raise
    return record.outcome()


def _control(run: str, record: Record, log: Log) -> ChildSpec[Actor]:
    from palmette.agents.programs.control import ProgramControl

    return ChildSpec(actor=ProgramControl, args=(run, record, log), name="control", restart="transient")


def _is_simulated() -> bool:
    return getattr(asyncio.get_running_loop(), "system_class", None) is not None
