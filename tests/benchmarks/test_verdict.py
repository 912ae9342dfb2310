"""Which exit reason counts as what."""

from __future__ import annotations

import msgspec
import pytest

from palmette.actors import Crashed, Killed, MaxRestarts, Normal, Reason, Shutdown, Unreachable
from palmette.actors.exits import reason_of
from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Outcome, kind
from palmette.benchmarks.verdict import hopeless, outcome_of
from palmette.machines import Evidence, MachineBroken, MachineLost

BUG = Crashed(error="builtins.KeyError", text="'x'")
LOST = Crashed(error="palmette.machines.errors.MachineLost", text="gone", retryable=True, cause="daemon_gone")
BROKEN = Crashed(error="palmette.machines.errors.MachineBroken", text="full", cause="out_of_memory")


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
        (gave_up("machine", BROKEN), "agent_failed", "MachineBroken: full"),
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
    ("reason", "cause"),
    [
        (gave_up("agent", BUG), ""),
        (gave_up("agent", LOST), "daemon_gone"),
        (gave_up("machine", LOST), "daemon_gone"),
        (gave_up("machine", BROKEN), "out_of_memory"),
        (Killed("by hand"), ""),
    ],
)
def test_the_cause_goes_with_it(reason: Reason, cause: str) -> None:
    judged = outcome_of(reason)
    assert isinstance(judged, AgentFailed | InfraFailed)
    assert judged.cause == cause


def test_an_error_takes_its_cause_and_whether_to_try_again_into_the_exit_reason() -> None:
    lost = reason_of(MachineLost("exec", Evidence(cause="machine_killed", detail="exit code 137")))
    assert isinstance(lost, Crashed)
    assert (lost.cause, lost.retryable) == ("machine_killed", True)
    broken = reason_of(MachineBroken("exec", Evidence(cause="out_of_memory", agents_doing=True)))
    assert isinstance(broken, Crashed)
    assert (broken.cause, broken.retryable) == ("out_of_memory", False)
    assert getattr(reason_of(MachineLost("gone")), "cause", None) == "unknown"
    assert getattr(reason_of(ValueError("no")), "cause", None) == ""


def test_outcomes_of_older_journals_are_read() -> None:
    for tag, kind_ in (("infra_failed", InfraFailed), ("agent_failed", AgentFailed)):
        told = msgspec.json.decode(f'{{"type": "{tag}", "reason": "gone"}}', type=Outcome)
        assert told == kind_(reason="gone", cause="")


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        ("palmette.agents.errors.ModelRefused", True, True),
        ("palmette.agents.errors.BudgetSpent", True, True),
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
