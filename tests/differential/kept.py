"""Schedules that once told our supervisors from OTP's, shrunk; each by what was learnt from it."""

from __future__ import annotations

from typing import Final

from differential.schedules import (
    During,
    Exit,
    Operation,
    Order,
    Refuse,
    Schedule,
    Static,
    Together,
    Worker,
)

from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import AutoShutdown, Strategy


def _worker(name: str, restart: Restart = "permanent", *, significant: bool = False) -> Worker:
    return Worker(name=name, restart=restart, shutdown="long", on_stop="obey", significant=significant)


def _schedule(
    strategy: Strategy, auto: AutoShutdown, children: list[Worker], *operations: Operation, intensity: int = 5
) -> Schedule:
    root = Static("root", strategy, intensity, auto, "permanent", "infinity", tuple(children))
    return Schedule(root=root, refusals=(), operations=operations)


_WHICH = Order("which_children", "root")
_THREE = [_worker("w1"), _worker("w2"), _worker("w3")]

KEPT: Final[dict[str, Schedule]] = {
    "a restart is not put off until the next end has been looked at": _schedule(
        "rest_for_one", "never", [_worker("w1"), _worker("w2")], Together("root", ("w2", "w1"), "crash")
    ),
    "a child is up again before a significant one ends its supervisor": _schedule(
        "one_for_one",
        "any_significant",
        [_worker("w1", "temporary", significant=True), _worker("w2")],
        Together("root", ("w2", "w1"), "crash"),
    ),
    "a failed restart is paid for when it is tried again, and not if it was called off": _schedule(
        "one_for_one",
        "never",
        [_worker("w1"), _worker("w2")],
        During("w1", "crash", Order("terminate_child", "root", "w1")),
        Exit("w2", "crash"),
        _WHICH,
        intensity=2,
    ),
    "a spent budget ends the supervisor after the order that came in between": _schedule(
        "one_for_one",
        "never",
        [_worker("w1"), _worker("w2")],
        During("w1", "crash", Order("terminate_child", "root", "w1")),
        _WHICH,
        intensity=1,
    ),
    "what came up in a failed restart of all is up until the next attempt": _schedule(
        "one_for_all", "never", _THREE, Refuse("w2", 2), During("w2", "crash", _WHICH), _WHICH
    ),
    "a child that is down for good with its group does not keep its supervisor": _schedule(
        "one_for_all",
        "all_significant",
        [_worker("w1", "transient", significant=True), _worker("w2"), _worker("w3", "transient", significant=True)],
        During("w2", "crash", Order("terminate_child", "root", "w2")),
        Exit("w1", "normal"),
    ),
    "a child that may not be significant is refused before its name is looked at": _schedule(
        "one_for_one",
        "never",
        [_worker("w1")],
        Order("start_child", "root", spec=_worker("w1", "temporary", significant=True)),
    ),
}
