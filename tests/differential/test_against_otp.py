"""Our supervisors and OTP's own run the same schedules, and must leave the same trace.

A schedule is a random tree of one or two levels and up to fifteen or so operations: children end, by themselves or
killed, alone or several at once; starts fail or decline; calls come and other children end in the middle of a restart;
an intensity window passes. A trace is the order of every start and refused start, every end with its class of reason,
and the answers of every call. Each operation comes to rest before the next. ``make test-long`` asks for 20,000,
``PALMETTE_SCHEDULES=20000 PALMETTE_SEED=7`` for others.

What the two do differently on purpose, and what becomes of it here:

=======================================  ==============================================================================
difference                               here
=======================================  ==============================================================================
backoff                                  off: no child has one
a spent budget ends with ``MaxRestarts``, both count as ``shutdown`` in the trace; a transient supervisor gets the rule
abnormal for the parent                  ``max_restarts: stop``, so that its parent takes it as finished, as OTP does
restart by error class                   no further rules
completed (or terminated) stays so       ``resurrect=True`` everywhere, which is OTP's way
a child may live on another node         left out
window on an exact clock                 OTP truncates to seconds: windows are never outlived, or outlived by far
one name per dynamic child               the reference keeps names for pids; ``specs`` is not compared there
dynamic child specs                      all of one supervisor's are alike, as ``simple_one_for_one`` has it
significant dynamic children             left out: we refuse them
significant, and down with its group     counts as ended for OTP, as living for us while the group's restart is pending
                                         (a backoff makes that long): no such child when another ends just then
``already_started``, ``already_present``  one class (``ChildExists``), as are ``running`` and ``restarting``
children of a killed supervisor          theirs are left to die, ours are stopped first: their ends are left out
a supervisor whose start failed          its own end is left out; those of its children are compared
dynamic children stop in parallel        their ends are sorted
``count_children`` of OTP 25             after ``terminate_child`` on a restarting dynamic child OTP's ``active`` is one
                                         too low (it prints ``-1``): not compared from there on
``ignore`` at a dynamic restart          left out: OTP 25 keeps an entry without a process, counts it as active, and
                                         crashes on it when it stops; ours is forgotten, as in Elixir
=======================================  ==============================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from differential import coverage, palmette_side
from differential.comparing import difference, shrunk
from differential.coverage import Coverage
from differential.drawing import draw
from differential.kept import KEPT
from differential.otp_side import Reference
from differential.schedules import NEVER, Schedule

from palmette.supervisors import policy

SCHEDULES = int(os.environ.get("PALMETTE_SCHEDULES", "2000"))
SEED = int(os.environ.get("PALMETTE_SEED", "0"))
ENOUGH = 2000
"""Schedules that reach every cell of the coverage."""


@pytest.mark.timeout(3600)
def test_random_schedules_leave_the_same_trace_as_otp(
    otp: Reference, record_property: Callable[[str, object], None]
) -> None:
    figures: Coverage = Coverage()
    seeds = range(SEED, SEED + SCHEDULES)
    schedules = [draw(seed) for seed in seeds]
    began = time.perf_counter()
    with otp.start(schedules) as running:
        ours = [
            palmette_side.trace(schedule, seed=seed, coverage=figures)
            for seed, schedule in zip(seeds, schedules, strict=True)
        ]
        theirs = running.traces()
    took = time.perf_counter() - began
    title = f"{SCHEDULES} schedules on palmette and on OTP, from seed {SEED}, in {took:.1f} s"
    record_property("summary", f"{title}\n{coverage.table(figures)}")
    differing = [
        seed
        for seed, schedule, mine, other in zip(seeds, schedules, ours, theirs, strict=True)
        if difference(schedule, mine, other) is not None
    ]
    if differing:
        at = differing[0] - SEED
        pytest.fail(_told(otp, differing, schedules[at], ours[at], theirs[at]))
    if SCHEDULES >= ENOUGH:
        missed = [cell for cell in coverage.cells() if not coverage.count(figures, cell)]
        assert not missed, f"the generator never came to {missed}"


def _told(otp: Reference, seeds: list[int], schedule: Schedule, ours: list[str], theirs: list[str]) -> str:
    seed = seeds[0]
    whole = difference(schedule, ours, theirs)
    small = shrunk(schedule, lambda one: _difference(otp, one) is not None)
    return (
        f"{len(seeds)} schedules differ: seeds {seeds[:20]}\n\nseed {seed}, as drawn:\n{schedule.shown()}\n{whole}\n\n"
        f"shrunk:\n{small.shown()}\n{_difference(otp, small) or '  (the difference did not come back)'}\n\n"
        f"again: PALMETTE_SEED={seed} PALMETTE_SCHEDULES=1 pytest tests/differential"
    )


def _difference(otp: Reference, schedule: Schedule) -> str | None:
    return difference(schedule, palmette_side.trace(schedule), otp.trace(schedule))


def test_what_once_differed_does_not_differ_again(otp: Reference) -> None:
    with otp.start(list(KEPT.values())) as running:
        theirs = running.traces()
    for (learnt, schedule), other in zip(KEPT.items(), theirs, strict=True):
        told = difference(schedule, palmette_side.trace(schedule), other)
        assert told is None, f"{learnt}:\n{schedule.shown()}\n{told}"


def test_a_planted_mistake_is_found_and_shrunk(otp: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transient child that is restarted whatever its reason: the comparison must notice, and point at it."""
    monkeypatch.setitem(policy.VERDICTS, "transient", policy.VERDICTS["permanent"])
    schedules = [drawn for drawn in map(draw, range(100)) if drawn.period == NEVER]  # nobody waits for real here
    with otp.start(schedules) as running:
        ours = [palmette_side.trace(schedule) for schedule in schedules]
        theirs = running.traces()
    found = [
        schedule
        for schedule, mine, other in zip(schedules, ours, theirs, strict=True)
        if difference(schedule, mine, other) is not None
    ]
    assert len(found) >= 10
    small = shrunk(found[0], lambda one: _difference(otp, one) is not None, most=40)
    assert _difference(otp, small) is not None
    assert len(small.operations) <= 2 < len(found[0].operations)


def test_the_same_seed_draws_the_same_schedule() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert len({draw(seed) for seed in range(50)}) == 50
