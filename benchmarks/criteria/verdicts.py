"""Small helpers that the criteria share."""

from __future__ import annotations

from palmette.benchmarks.errors import EvaluatorError
from palmette.benchmarks.outcomes import CriterionScore
from palmette.machines.contract import Machine

_SHOWN = 200


def verdict(name: str, weight: float, passed: bool, reason: str) -> CriterionScore:
    """A criterion that is met or not: 1 or 0."""
    return CriterionScore(name=name, score=1.0 if passed else 0.0, weight=weight, passed=passed, reason=reason)


def shown(text: str) -> str:
    """``text`` for a reason: quoted, and cut where it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"


def required(machine: Machine | None, name: str) -> Machine:
    """``machine``, or an error for a criterion that cannot do without.

    Raises:
        EvaluatorError: the episode had none.
    """
    if machine is None:
        raise EvaluatorError(f"criterion {name!r} needs a machine; set needs_machine on the benchmark")
    return machine
