"""In which order groups stop and start, and what happens to those who are in the way."""

from __future__ import annotations

import asyncio

import pytest
from supervisors_support import (
    Worker,
    at,
    crash,
    diary,
    end,
    finish,
    incarnations,
    root_of,
    states,
    workers,
)
from support.probes import Boom, Probe
from support.worlds import everywhere, steps, took, turns

from palmette.actors import Actor, MaxRestarts, Normal, StartFailed, System
from palmette.supervisors import ChildSpec, Supervisor, child
from palmette.supervisors.supervisor import Strategy


def tree(strategy: Strategy, *children: ChildSpec[Actor], max_restarts: int = 100) -> ChildSpec[Supervisor]:
    return Supervisor.spec(strategy=strategy, children=children, max_restarts=max_restarts)


@everywhere
async def test_children_start_from_left_to_right_and_stop_from_right_to_left() -> None:
    async with System.start(tree("one_for_one", *workers("abc"))):
        assert diary() == "+a +b +c"
    assert diary() == "-c -b -a"


@everywhere
async def test_a_failing_first_start_stops_those_already_up_in_reverse_and_is_not_tried_again() -> None:
    Worker.fail["c"] = 1
    with pytest.raises(StartFailed, match="/c could not start: Boom: no start of c"):
        async with System.start(tree("one_for_one", *workers("abcd"))):
            pass
    assert diary() == "+a +b !c -b -a"


@pytest.mark.parametrize(
    ("strategy", "line"),
    [("one_for_one", "+b"), ("one_for_all", "-d -c -a +a +b +c +d"), ("rest_for_one", "-d -c +b +c +d")],
)
@everywhere
async def test_a_group_stops_in_reverse_and_starts_forward(strategy: Strategy, line: str) -> None:
    async with System.start(tree(strategy, *workers("abcd"))) as system:
        diary()
        await crash(system, "b")
        assert diary() == line


@everywhere
async def test_one_for_all_starts_over_when_a_member_fails_to_come_back() -> None:
    async with System.start(tree("one_for_all", *workers("abcd"))) as system:
        diary()
        Worker.fail["c"] = 2
        await crash(system, "b")
        assert diary() == "-d -c -a +a +b !c -b -a +a +b !c -b -a +a +b +c +d"
        assert list((await states(system)).values()) == ["running"] * 4


@everywhere
async def test_rest_for_one_resumes_at_the_member_that_failed() -> None:
    async with System.start(tree("rest_for_one", *workers("abcd"))) as system:
        diary()
        Worker.fail["c"] = 2
        await crash(system, "b")
        assert diary() == "-d -c +b !c !c +c +d"
        assert incarnations(system, "abcd") == [1, 2, 4, 2]


@everywhere
async def test_temporary_members_of_a_group_are_stopped_and_dropped() -> None:
    children = [*workers("a"), *workers("b", "temporary"), *workers("c")]
    async with System.start(tree("one_for_all", *children)) as system:
        diary()
        await crash(system, "c")
        assert diary() == "-b -a +a +c"
        assert await states(system) == {"a": "running", "c": "running"}
        assert "/b" not in system.slots


@everywhere
async def test_completed_and_stopped_members_stay_so_when_their_group_restarts() -> None:
    children = [*workers("ab", "transient"), *workers("c")]
    async with System.start(tree("one_for_all", *children)) as system:
        await finish(system, "a")
        await root_of(system).call(Supervisor.terminate_child, "b")
        diary()
        await crash(system, "c")
        assert diary() == "+c"
        assert await states(system) == {"a": "completed", "b": "stopped", "c": "running"}


@everywhere
async def test_a_completed_member_comes_back_with_its_group_if_its_spec_says_resurrect() -> None:
    children = [*workers("a", "transient", resurrect=True), *workers("b")]
    async with System.start(tree("one_for_all", *children)) as system:
        await finish(system, "a")
        diary()
        await crash(system, "b")
        assert diary() == "+a +b"


@everywhere
async def test_a_child_that_dies_while_its_supervisor_restarts_another_is_not_lost() -> None:
    async with System.start(tree("one_for_one", *workers("ab"))) as system:
        Worker.slow["a"] = 10
        await crash(system, "a")  # the supervisor waits for a's start now
        await crash(system, "b")
        assert await states_later(system) == {"a": "running", "b": "running"}
        assert incarnations(system, "ab") == [2, 2]


async def states_later(system: System) -> dict[str, str]:
    await asyncio.sleep(12)
    return await states(system)


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
@everywhere
async def test_a_member_that_dies_again_before_its_group_is_up_is_restarted_once_more(strategy: Strategy) -> None:
    async with System.start(tree(strategy, *workers("abc"))) as system:
        Worker.slow["c"] = 10
        await crash(system, "b")
        assert at(system, "b").incarnation == 2
        await crash(system, "b")  # c is still starting
        assert await states_later(system) == {"a": "running", "b": "running", "c": "running"}
        assert incarnations(system, "bc") == [3, 3]


@everywhere
async def test_a_member_that_dies_before_a_later_one_fails_to_start_is_not_forgotten() -> None:
    async with System.start(tree("rest_for_one", *workers("abc"))) as system:
        Worker.slow["c"] = 10
        Worker.fail["c"] = 1
        await crash(system, "b")
        await crash(system, "b")  # dies while c starts, which then fails
        assert await states_later(system) == {"a": "running", "b": "running", "c": "running"}


@everywhere
async def test_two_deaths_at_once_restart_a_group_once() -> None:
    async with System.start(tree("one_for_all", *workers("abc"), max_restarts=1)) as system:
        diary()
        await crash(system, "a", "c")
        assert diary() == "-b +a +b +c"
        assert incarnations(system, "abc") == [2, 2, 2]


@everywhere
async def test_two_deaths_at_once_are_two_restarts_where_each_stands_alone() -> None:
    async with System.start(tree("one_for_one", *workers("abc"))) as system:
        diary()
        await crash(system, "a", "c")
        assert diary() == "+a +c"


@everywhere
async def test_a_member_that_a_rule_lets_go_does_not_keep_the_rest_of_its_group_down() -> None:
    children = [*workers("a"), *workers("b", rules={"Boom": "stop"}), *workers("c")]
    async with System.start(tree("one_for_all", *children)) as system:
        diary()
        Worker.fail["b"] = 1
        await crash(system, "a")
        assert diary() == "-c -b +a !b +c"
        assert await states(system) == {"a": "running", "b": "completed", "c": "running"}


@everywhere
async def test_a_restart_loop_lets_requests_through_and_ends_when_they_say_so() -> None:
    async with System.start(tree("one_for_one", *workers("ab"), max_restarts=10_000)) as system:
        Worker.fail["a"] = 10_000
        at(system, "a").cast(Worker.end, Boom("crash"))
        await steps(200)
        assert (await states(system))["a"] == "restarting"
        await root_of(system).call(Supervisor.terminate_child, "a")
        failed = Worker.fail["a"]
        await turns(200)
        assert Worker.fail["a"] == failed
        assert await states(system) == {"a": "stopped", "b": "running"}


@everywhere
async def test_a_supervisor_that_is_asked_to_end_during_a_restart_does_not_finish_it() -> None:
    inner = Supervisor.spec(name="inner", strategy="one_for_all", children=workers("abc"), restart="temporary")
    async with System.start(Supervisor.spec(children=[inner])) as system:
        supervisor = system.whereis("inner", Supervisor)
        diary()
        Worker.slow["a"] = 10
        system.ref_at("/inner/b", Worker).cast(Worker.end, Boom("crash"))
        await turns(200)
        await supervisor.stop(timeout=100)
        assert diary() == "-c -a +a -a"


@everywhere
async def test_a_supervisor_is_a_child_like_any_other() -> None:
    inner = Supervisor.spec(name="inner", restart="transient", max_restarts=1, max_seconds=100, children=workers("x"))
    async with System.start(Supervisor.spec(children=[inner, *workers("a")])) as system:
        x = system.ref_at("/inner/x", Worker)
        for _ in range(2):
            x.cast(Worker.end, Boom("crash"))
            await turns(200)
        # It spent its budget, which is abnormal for its parent, and was restarted with all its children.
        assert system.whereis("inner", Supervisor).incarnation == 2
        assert await x.call(Worker.ping) == x.incarnation == 3
        gave_up = system.why("/inner")[-1].reason
        assert isinstance(gave_up, MaxRestarts)
        assert at(system, "a").incarnation == 1


@everywhere
async def test_children_that_were_added_later_do_not_come_back_with_their_supervisor() -> None:
    inner = Supervisor.spec(name="inner", children=workers("x"))
    async with System.start(Supervisor.spec(children=[inner])) as system:
        supervisor = system.whereis("inner", Supervisor)
        await supervisor.call(Supervisor.start_child, workers("y")[0])
        supervisor.kill()
        await turns(200)
        assert [info.name for info in await supervisor.call(Supervisor.which_children)] == ["x"]
        assert "/inner/y" not in system.slots


@everywhere
async def test_a_child_that_will_not_stop_in_time_is_killed_and_the_restart_goes_on() -> None:
    async with System.start(tree("one_for_all", *workers("a"), child(Probe, name="slow", shutdown=3))) as system:
        slow = system.whereis("slow", Probe)
        call = asyncio.create_task(slow.call(Probe.pass_gate))
        await turns()
        await crash(system, "a")
        with pytest.raises(Exception, match=r"did not stop within 3 s"):
            await call
        await turns(200)
        assert took(3)
        assert await states(system) == {"a": "running", "slow": "running"}


@everywhere
async def test_a_member_that_finished_before_its_group_could_be_stopped_has_finished() -> None:
    children = [*workers("a"), *workers("b", "transient"), *workers("c", "transient", resurrect=True)]
    async with System.start(tree("one_for_all", *children)) as system:
        await end(system, {"a": Boom("crash"), "b": Normal(), "c": Normal()})
        assert await states(system) == {"a": "running", "b": "completed", "c": "running"}
        assert incarnations(system, "abc") == [2, 1, 2]
