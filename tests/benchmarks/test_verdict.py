"""Which exit reason counts as what."""

from __future__ import annotations

import pytest

from palmette.actors import Crashed, Killed, MaxRestarts, Normal, Reason, Shutdown, Unreachable
from palmette.benchmarks.outcomes import kind
from palmette.benchmarks.verdict import hopeless, outcome_of

BUG = Crashed(error="builtins.KeyError", text="'x'")
LOST = Crashed(error="palmette.machines.errors.MachineLost", text="gone", retryable=True)


def gave_up(child: str, cause: Reason) -> Reason:
    return MaxRestarts(child=child, cause=cause, restarts=3, seconds=60.0)


@pytest.mark.parametrize(
    ("reason", "outcome", "says"),
    [
        (gave_up("agent", BUG), "agent_failed", "KeyError: 'x'"),
        (gave_up("agent", LOST), "infra_failed", "agent: MachineLost: gone"),
        (gave_up("agent", Killed("by hand")), "infra_failed", "agent: killed (by hand)"),
        (gave_up("agent", Unreachable("n1")), "infra_failed", "agent: node n1 is unreachable"),
        (gave_up("machine", BUG), "infra_failed", "machine: KeyError: 'x'"),
        (gave_up("machine", LOST), "infra_failed", "machine: MachineLost: gone"),
        (gave_up("evaluator", BUG), "judge_failed", "KeyError: 'x'"),
        (gave_up("evaluator", LOST), "judge_failed", "MachineLost: gone"),
        (gave_up("agent", gave_up("tool", BUG)), "agent_failed", "KeyError: 'x'"),
        (BUG, "infra_failed", "KeyError: 'x'"),
        (Killed("by hand"), "infra_failed", "killed (by hand)"),
        (Shutdown("not wanted any more"), "cancelled", "not wanted any more"),
        (Normal(), "infra_failed", "normal"),
    ],
)
def test_an_exit_reason_counts_as(reason: Reason, outcome: str, says: str) -> None:
    judged = outcome_of(reason)
    assert kind(judged) == outcome
    assert getattr(judged, "reason", None) == says
    assert not hasattr(judged, "reward")


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        ("palmette.agents.errors.ModelRefused", True, True),
        ("palmette.agents.errors.NoApiKey", True, True),
        ("palmette.agents.errors.MissingExtra", True, True),
        ("palmette.agents.errors.ModelUnavailable", True, False),
        ("palmette.agents.errors.RequestRefused", True, False),
        ("builtins.KeyError", False, False),
    ],
)
def test_a_run_is_hopeless(error: str, before: bool, after: bool) -> None:
    reason = gave_up("agent", Crashed(error=error, text="the sentence"))
    assert (hopeless(reason, scored=0) == "the sentence") is before
    assert (hopeless(reason, scored=1) == "the sentence") is after


def test_an_end_that_is_no_crash_is_never_hopeless() -> None:
    assert hopeless(gave_up("agent", Killed("ModelRefused")), scored=0) is None
