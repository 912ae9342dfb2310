"""From an exit reason to an outcome: what an episode that broke down counts as.

The child that spent the budget says who failed; its last reason says whether that was its own doing. A lost machine,
model or node under the agent is infrastructure, whoever stumbled over it; but a machine that a command on it brought
down (:class:`~palmette.machines.MachineBroken`: it used up the memory, it killed what keeps it) is the agent's failure,
also where the agent's program did it while it was judged.
"""

from __future__ import annotations

from typing import Final

from palmette.actors import Crashed, Killed, MaxRestarts, Reason, Shutdown, Unreachable, describe, root_cause
from palmette.benchmarks.outcomes import AgentFailed, Cancelled, InfraFailed, JudgeFailed, Outcome

HOPELESS: Final = (
    "ModelRefused",
    "BudgetSpent",
    "ConfigurationError",
    "NoApiKey",
    "MissingExtra",
    "ImageRefused",
    "ImageUnusable",
)
"""Errors that every further episode would meet as well: the run stops and says so."""

SUSPICIOUS: Final = ("ModelUnavailable", "RequestRefused", "ProviderAbsent")
"""Errors that every further episode is bound to meet if none has got past them yet."""


BROKEN: Final = "MachineBroken"


def outcome_of(reason: Reason) -> Outcome:
    """The outcome of an episode whose tree ended for ``reason``, before an evaluator had the say."""
    if isinstance(reason, Shutdown):
        return Cancelled(reason=reason.detail or "its tree was asked to end")
    child = reason.child if isinstance(reason, MaxRestarts) else ""
    cause = root_cause(reason)
    if child == "evaluator":
        return JudgeFailed(reason=describe(cause))
    word = cause.cause if isinstance(cause, Crashed) else ""
    if is_agents_doing(cause) or (child == "agent" and not is_infrastructure(cause)):
        return AgentFailed(reason=describe(cause), cause=word)
    return InfraFailed(reason=f"{child}: {describe(cause)}" if child else describe(cause), cause=word)


def is_agents_doing(cause: Reason) -> bool:
    """Whether a machine ended by what was run on it."""
    return isinstance(cause, Crashed) and cause.error.rpartition(".")[2] == BROKEN


def is_infrastructure(cause: Reason) -> bool:
    """Whether a reason lies below the agent: something was lost, or says itself that trying again may help."""
    return isinstance(cause, Killed | Unreachable) or (isinstance(cause, Crashed) and cause.retryable)


def hopeless(reason: Reason, *, scored: int) -> str | None:
    """Why no further episode can do better, if that is so; ``scored`` is how many have been scored in this run.

    Once anything was scored, a model (or a Docker daemon) that cannot be reached is an outage, and one that refuses a
    request has something against that request. Before, the address or the set-up is wrong.
    """
    cause = root_cause(reason)
    if not isinstance(cause, Crashed):
        return None
    error = cause.error.rpartition(".")[2]
    return cause.text if error in HOPELESS or (error in SUSPICIOUS and not scored) else None
