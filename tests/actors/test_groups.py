"""A group is a key that many have, each with a value: kept true by deaths, read and sent to as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import Probe, ended, running, worker
from support.worlds import everywhere, here, turns

from palmette.actors import ActorDied, Member, Ref, Refused, Registry, System
from palmette.supervisors import child


def refs_of(system: System, names: str) -> list[Ref[Probe]]:
    return [system.whereis(name, Probe) for name in names]


@everywhere
async def test_members_of_a_group_leave_it_by_dying() -> None:
    async with running(*(child(Probe, name=name) for name in "abc")) as system:
        registry = system.whereis("registry", Registry)
        refs = [system.whereis(name, Probe) for name in "abc"]
        for ref in (*refs, refs[0]):
            await registry.call(Registry.join, "workers", ref)
        assert await registry.call(Registry.members, "workers") == ["/a", "/b", "/c"]
        await registry.call(Registry.leave, "workers", refs[1])
        await registry.call(Registry.leave, "workers", refs[1])
        refs[0].kill()
        await ended(refs[0])
        await system.wait_for("a", Probe)
        assert await registry.call(Registry.members, "workers") == ["/c"]  # a membership is of one incarnation
        await refs[2].stop()
        await turns()
        assert system.registry_table.groups == {}


@everywhere
async def test_the_dead_join_nothing() -> None:
    async with running(worker(Probe)) as system:
        it, registry = system.whereis("it", Probe), system.whereis("registry", Registry)
        await it.stop()
        with pytest.raises(Refused, match="nobody lives at /it"):
            await registry.call(Registry.join, "workers", it)


@everywhere
async def test_each_member_has_a_value_of_its_own_and_may_change_it() -> None:
    async with running(*(worker(Probe, name=name) for name in "ab")) as system:
        a, b = refs_of(system, "ab")
        registry = system.registry
        await registry.call(Registry.join, "topic", a, {"weight": 1})
        await registry.call(Registry.join, "topic", b)
        assert await registry.call(Registry.entries, "topic") == [Member("/a", {"weight": 1}), Member("/b", None)]
        await registry.call(Registry.update, "topic", a, 2)
        await registry.call(Registry.join, "topic", b, 3)  # to join again is to change the value
        assert await system.entries("topic", Probe) == [(a, 2), (b, 3)]
        await registry.call(Registry.leave, "topic", a)
        with pytest.raises(Refused, match="/a is not in the group 'topic'; join it first"):
            await registry.call(Registry.update, "topic", a, 4)
        assert await system.entries("topic", Probe) == [(b, 3)]
        assert await system.entries("nobody's", Probe) == []


@everywhere
async def test_one_actor_may_be_in_many_groups_and_leaves_all_by_ending() -> None:
    async with running(child(Probe, name="a")) as system:
        [a] = refs_of(system, "a")
        for group in ("y", "x"):
            await system.registry.call(Registry.join, group, a, group)
        assert await system.registry.call(Registry.groups_of, a) == ["x", "y"]
        a.kill()
        await ended(a)
        await system.wait_for("a", Probe)
        assert await system.registry.call(Registry.groups_of, a) == []
        assert system.registry_table.groups == {}
        await system.registry.call(Registry.join, "x", a, "again")
        assert await system.entries("x", Probe) == [(a, "again")]


@everywhere
async def test_a_message_that_is_dispatched_reaches_each_member_once() -> None:
    async with running(*(worker(Probe, name=name) for name in "abc")) as system:
        a, b, c = refs_of(system, "abc")
        for member in (a, b, a):
            await system.registry.call(Registry.join, "topic", member)
        assert await system.dispatch("topic", "news") == 2
        assert await system.dispatch("nobody's", "news") == 0
        assert [await ref.call(Probe.seen) for ref in (a, b, c)] == [["news"], ["news"], []]


@everywhere
async def test_a_group_outlives_its_registry() -> None:
    async with running(worker(Probe, name="a")) as system:
        [a] = refs_of(system, "a")
        await system.registry.call(Registry.join, "topic", a, 1)
        system.registry.kill()
        await ended(system.registry)
        await system.wait_for("registry", Registry)
        assert await system.registry.call(Registry.entries, "topic") == [Member("/a", 1)]
        await a.stop()
        assert await system.registry.call(Registry.entries, "topic") == []


STEPS = st.tuples(st.sampled_from(["join", "leave", "update", "kill"]), st.integers(0, 2), st.sampled_from("xy"))


@pytest.mark.worlds("real", "simulated")
@given(steps=st.lists(STEPS, max_size=30))
def test_whatever_happens_a_group_is_who_joined_and_lives(steps: list[tuple[str, int, str]]) -> None:
    @here()
    async def check() -> None:
        async with running(*(child(Probe, name=name) for name in "abc")) as system:
            refs = refs_of(system, "abc")
            expected: dict[str, dict[Ref[Probe], object]] = {"x": {}, "y": {}}
            for number, (step, index, group) in enumerate(steps):
                ref, members = refs[index], expected[group]
                if step == "join":
                    await system.registry.call(Registry.join, group, ref, number)
                    members[ref] = number
                elif step == "leave":
                    await system.registry.call(Registry.leave, group, ref)
                    members.pop(ref, None)
                elif step == "update" and ref in members:
                    await system.registry.call(Registry.update, group, ref, number)
                    members[ref] = number
                elif step == "kill":
                    ref.kill()
                    await ended(ref)
                    for left in expected.values():
                        left.pop(ref, None)
                    await system.wait_for(ref.path, Probe)
            for group, members in expected.items():
                assert await system.entries(group, Probe) == list(members.items())

    check()


@everywhere
async def test_the_dead_have_no_value_to_change() -> None:
    async with running(worker(Probe, name="a")) as system:
        [a] = refs_of(system, "a")
        await system.registry.call(Registry.join, "topic", a)
        with pytest.raises(ActorDied):
            await a.call(Probe.fail)
        with pytest.raises(Refused, match="nobody lives at /a"):
            await system.registry.call(Registry.update, "topic", a, 1)
