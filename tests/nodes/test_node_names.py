"""Names on real process nodes: found everywhere, given to one only, and free when a process is killed."""

from __future__ import annotations

import os
import signal

import pytest
from node_actors import Worker
from node_bench import Bench
from node_members import Finder, Household
from node_processes import until

from palmette.actors import Registry
from palmette.supervisors import StartRefused, Supervisor, child

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def household(bench: Bench, name: str) -> str:
    spec = child(Household, name=name, isolation="process", restart="temporary", first=f"{name}-head")
    return (await bench.start(spec)).path


async def test_a_name_is_one_over_all_processes_and_goes_with_its_process(bench: Bench) -> None:
    system = bench.system
    home = await household(bench, "home")
    other = await household(bench, "other")
    bob = child(Worker, tag="bob", name="bob", register="bob")
    await system.ref_at(home, Supervisor).call(Supervisor.start_child, bob)
    head = system.ref_at(f"{other}/other-head", Finder)
    found = await head.call(Finder.find_here, "bob")
    assert found == system.whereis("bob", Worker)
    assert await head.call(Worker.ask, found, "hello") == (await found.call(Worker.pid), found)
    with pytest.raises(StartRefused, match=f"NameTaken: the name 'bob' belongs to {home}/bob; choose another"):
        await system.ref_at(other, Supervisor).call(Supervisor.start_child, bob)

    system.registry.kill()
    assert await head.call(Finder.find_here, "bob") == found
    os.kill(await found.call(Worker.pid), signal.SIGKILL)
    await until(lambda: "bob" not in system.registry_table.names)
    await system.ref_at(other, Supervisor).call(Supervisor.start_child, bob)
    assert (await head.call(Finder.find_here, "bob")).path == f"{other}/bob"
    assert (await system.registry.call(Registry.names))["bob"] == f"{other}/bob"
