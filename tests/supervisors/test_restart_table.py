"""Which death restarts whom: every strategy, restart type and kind of reason."""

from __future__ import annotations

import pytest
from supervisors_support import at, finish, incarnations, root_of, states, workers
from support.probes import Boom
from support.worlds import everywhere, turns

from palmette.actors import Normal, Shutdown, System
from palmette.supervisors import Supervisor
from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import Strategy

GROUPS: dict[Strategy, str] = {"one_for_one": "b", "one_for_all": "abc", "rest_for_one": "bc"}
REASONS = {"normal": Normal(), "shutdown": Shutdown("done"), "crash": Boom("crash"), "killed": None}
RESTARTED: dict[Restart, set[str]] = {
    "permanent": {"normal", "shutdown", "crash", "killed"},
    "transient": {"crash", "killed"},
    "temporary": set(),
}


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("restart", RESTARTED)
@pytest.mark.parametrize("strategy", GROUPS)
@everywhere
async def test_who_is_restarted_when_the_middle_child_ends(strategy: Strategy, restart: Restart, how: str) -> None:
    children = [*workers("a"), *workers("b", restart), *workers("c")]
    async with System.start(Supervisor.spec(strategy=strategy, children=children)) as system:
        reason = REASONS[how]
        if reason is None:
            at(system, "b").kill()
            await turns(200)
        else:
            await finish(system, "b", reason)  # pyright: ignore[reportArgumentType]
        group = GROUPS[strategy] if how in RESTARTED[restart] else ""
        assert incarnations(system, "abc") == [2 if name in group else 1 for name in "abc"]
        expected = dict.fromkeys("abc", "running")
        if not group and restart == "temporary":
            del expected["b"]
        elif not group:
            expected["b"] = "completed"
        assert await states(system) == expected
        assert root_of(system).incarnation == 1
