"""Rules treat exit reasons specially, the most specific name first."""

from __future__ import annotations

import pytest
from supervisors_support import Worker, at, crash, finish, incarnations, states, workers
from support.probes import Boom
from support.worlds import everywhere, turns

from palmette.actors import ActorDied, Crashed, Killed, NoProcess, Normal, Reason, Shutdown, System, Unreachable
from palmette.supervisors import BadSpec, Supervisor, child
from palmette.supervisors.policy import Directive, Restart, Verdict, judge, names_of


class Hopeless(Exception):
    pass


def crashed(*, retryable: bool = False) -> Crashed:
    return Crashed(error="app.errors.RateLimited", text="", retryable=retryable)


@pytest.mark.parametrize(
    ("reason", "names"),
    [
        (crashed(), ("app.errors.RateLimited", "RateLimited", "crashed")),
        (crashed(retryable=True), ("app.errors.RateLimited", "RateLimited", "retryable", "crashed")),
        (Killed(), ("killed",)),
        (Unreachable("n1"), ("unreachable",)),
        (NoProcess("/x"), ("noprocess",)),
    ],
    ids=str,
)
def test_a_reason_has_these_names(reason: Reason, names: tuple[str, ...]) -> None:
    assert names_of(reason) == names


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ({}, "restart"),
        ({"crashed": "stop"}, "finished"),
        ({"crashed": "stop", "retryable": "backoff"}, "backoff"),
        ({"retryable": "backoff", "RateLimited": "escalate"}, "escalate"),
        ({"RateLimited": "escalate", "app.errors.RateLimited": "restart"}, "restart"),
        ({"killed": "stop", "Other": "stop"}, "restart"),
    ],
    ids=str,
)
def test_the_most_specific_rule_decides(rules: dict[str, Directive], verdict: Verdict) -> None:
    assert judge("permanent", rules, crashed(retryable=True)) == verdict


@pytest.mark.parametrize(("restart", "reason"), [("temporary", crashed()), ("transient", Normal())], ids=str)
def test_rules_do_not_bring_back_what_the_restart_type_lets_go(restart: Restart, reason: Reason) -> None:
    assert judge(restart, {"crashed": "restart", "normal": "restart"}, reason) == "finished"


@everywhere
async def test_stop_lets_the_child_stay_ended() -> None:
    async with System.start(Supervisor.spec(children=workers("ab", rules={"Hopeless": "stop"}))) as system:
        at(system, "a").cast(Worker.end, Hopeless("no such model"))
        await crash(system, "b")
        assert await states(system) == {"a": "completed", "b": "running"}
        assert incarnations(system, "ab") == [1, 2]


@everywhere
async def test_stop_also_ends_a_permanent_child_that_was_asked_to() -> None:
    async with System.start(Supervisor.spec(children=workers("a", rules={"shutdown": "stop"}))) as system:
        await finish(system, "a", Shutdown("enough"))
        assert await states(system) == {"a": "completed"}


@everywhere
async def test_escalate_gives_up_at_once_and_says_so() -> None:
    async def main() -> None:
        children = workers("a", rules={"Hopeless": "escalate"})
        async with System.start(Supervisor.spec(children=children, max_restarts=100)) as system:
            at(system, "a").cast(Worker.end, Hopeless("no such model"))
            await turns(1000)

    with pytest.raises(ActorDied, match="'a' escalated: Hopeless: no such model"):
        await main()


@everywhere
async def test_restart_is_the_default_and_can_be_said() -> None:
    async with System.start(Supervisor.spec(children=workers("a", rules={"Boom": "restart"}))) as system:
        at(system, "a").cast(Worker.end, Boom("crash"))
        await turns(200)
        assert incarnations(system, "a") == [2]


def test_an_unknown_directive_is_refused() -> None:
    with pytest.raises(BadSpec, match="the rule for 'killed' is 'ignore'; use restart, backoff, stop, escalate"):
        child(Worker, name="a", rules={"killed": "ignore"})  # pyright: ignore[reportArgumentType]
