"""Does a backend keep the contract? Every promise of :mod:`palmette.machines.contract`, tried out on real machines.

    report = await check("docker:python:3.12")
    assert report.ok, report.broken

and from a terminal: ``palmette machines check docker:python:3.12``. A backend of your own is registered under a name
(:func:`palmette.machines.register_backend`) and passes the same checks as ours; to look at one that has no name, give
the function that makes a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palmette.machines.conformance import commands, files, kills, life, processes, streams
from palmette.machines.conformance.kit import (
    CHECKS,
    Check,
    CheckResult,
    ConformanceReport,
    MakeMachine,
    run_checks,
)
from palmette.machines.images import machine_for

__all__ = ["Check", "CheckResult", "ConformanceReport", "check", "checks"]

GROUPS = tuple(module.__name__.rpartition(".")[2] for module in (commands, streams, kills, processes, files, life))
"""Of checks, in the order in which they are run."""


def checks(only: Sequence[str] = ()) -> list[Check]:
    """The checks, all or those whose name or group is in ``only``.

    Raises:
        ValueError: there is no check and no group of such a name.
    """
    ordered = sorted(CHECKS, key=lambda each: GROUPS.index(each.group))
    known = {each.name for each in ordered} | set(GROUPS)
    for name in only:
        if name not in known:
            raise ValueError(f"there is no check and no group {name!r}; groups are: {', '.join(GROUPS)}")
    return [each for each in ordered if not only or each.name in only or each.group in only]


async def check(
    image: str | MakeMachine,
    *,
    only: Sequence[str] = (),
    at_once: int = 1,
    on_result: Callable[[CheckResult], None] | None = None,
) -> ConformanceReport:
    """Try the promises out on machines of ``image``. Takes some twenty seconds, and less with more of them at once.

    Args:
        image: an image string, or what makes a machine that is not started.
        only: names of checks or groups; all by default.
        at_once: how many machines are used at the same time; most checks wait more than they work.
        on_result: called after each check.

    Raises:
        MachineError: no machine could be had.
        ValueError: ``only`` names something that there is not.
    """
    make = image if callable(image) else lambda: machine_for(image, owner="conformance")
    name = image if isinstance(image, str) else "a machine of the caller's"
    return await run_checks(make, name, checks(only), at_once=at_once, on_result=on_result)
