"""Groups hold members of all processes, and lose them when they end there."""

from __future__ import annotations

import pytest
from node_actors import Tell, Worker
from node_bench import Bench
from node_members import Joining, Members
from node_processes import until_call

from palmette.actors import Registry
from palmette.supervisors import child

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_members_in_processes_join_read_get_messages_and_leave_by_ending(bench: Bench) -> None:
    own = await bench.start(child(Joining, name="own", isolation="process", restart="temporary"))
    await bench.start(child(Members, name="members", isolation="process", restart="temporary"))
    joining = bench.system.ref_at("/more/own", Joining)
    inner = bench.system.ref_at("/more/members/inner", Joining)
    await joining.call(Joining.join, "g", 1)
    await inner.call(Joining.join, "g", 2)
    await bench.system.registry.call(Registry.register, "innermost", inner)
    everybody = [("/more/own", 1), ("/more/members/inner", 2)]
    assert await joining.call(Joining.entries, "g") == everybody
    assert [(ref.path, value) for ref, value in await bench.system.entries("g", Worker)] == everybody
    assert await bench.system.dispatch("g", Tell("news")) == 2
    for member in (own, inner):
        await until_call(lambda member=member: member.call(Worker.log), lambda log: log == ["news"])

    inner.kill()
    await until_call(lambda: bench.system.entries("g", Worker), lambda found: len(found) == 1)
    await until_call(lambda: bench.system.registry.call(Registry.names), lambda names: "innermost" not in names)
    own.kill()
    await until_call(lambda: bench.system.entries("g", Worker), lambda found: not found)
    assert bench.system.registry_table.groups == {}
    assert bench.system.registry_table.elsewhere == {}
