"""Running a program: as a child of the one that calls it, or as the root of a system of its own."""

from __future__ import annotations

import asyncio
import secrets

from palmette.actors import ActorDied, System
from palmette.actors.ending import settle
from palmette.agents.programs.actor import PROGRAM, ProgramActor
from palmette.agents.programs.decorator import Call
from palmette.agents.programs.errors import NoProgram
from palmette.agents.programs.handle import Handle
from palmette.agents.programs.log import Log
from palmette.agents.programs.starting import name_of, spec_for
from palmette.agents.programs.supervisor import ProgramSupervisor


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
    owner = f"program-{secrets.token_hex(4)}"
    spec, record = spec_for(call, name, f"/{name}", owner=owner, host=None, log=Log())
    tree = ProgramSupervisor.spec(name="programs", max_restarts=options.max_restarts, max_seconds=options.max_seconds)
    try:
        async with System.start(tree, name=name) as system:
            await system.ref_at("/", ProgramSupervisor).call(ProgramSupervisor.admit, spec, record)
            await record.until_over()
    except ActorDied:
        if not record.is_over:
            raise
    return record.outcome()
