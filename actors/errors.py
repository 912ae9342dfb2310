"""What can go wrong when one talks to actors.

::

    PalmetteError
    └── ActorError
        ├── ActorDied          the callee died before it replied, or nobody was there
        ├── DeadlineExceeded   no reply in time; a late one is dropped
        ├── Refused            the callee turned this one request down and lives on
        │   ├── BadCall        unknown endpoint, or arguments that do not fit it
        │   ├── MailboxFull    a bounded mailbox is at its bound
        │   ├── StashFull      an actor has put aside as much as it may
        │   └── Draining       an actor finishes what it has and takes nothing new
        ├── StartFailed        an actor (or a whole tree) could not start
        ├── Decline            an actor says in its start that it does not want to run
        ├── NameTaken          another living actor holds the name
        └── NodeError          a process node could not be started or was misused
            ├── Unsatisfiable  no host offers what a child needs (palmette.actors.cluster.placement)
            └── NoPlace        it was in use for as long as the child would wait (palmette.actors.cluster.placer)

``ActorDied`` and ``DeadlineExceeded`` say ``retryable``: an actor that lets them through crashes, and its supervisor
decides.
"""

from __future__ import annotations

from palmette.actors.exits import NoProcess, Reason, describe


class PalmetteError(Exception):
    """Everything that palmette raises on purpose."""

    retryable: bool = False


class ActorError(PalmetteError):
    """Something about an actor."""


class ActorDied(ActorError):
    """The actor at ``path`` is not there to answer; ``reason`` says why."""

    retryable = True

    def __init__(self, path: str, reason: Reason) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            f"{path} is not running" if isinstance(reason, NoProcess) else f"{path} died: {describe(reason)}"
        )


class DeadlineExceeded(ActorError, TimeoutError):
    """No reply within the deadline."""

    retryable = True


class Refused(ActorError):
    """Raise it in an endpoint to turn a request down without crashing; the caller sees it, nobody is restarted."""


class BadCall(Refused):
    """There is no such endpoint, or the arguments do not fit it."""


class MailboxFull(Refused):
    """The receiver's mailbox is at its bound."""

    retryable = True


class StashFull(Refused):
    """The receiver cannot handle the request yet, and has put aside as much as it may. In ``receive``: a crash."""

    retryable = True


class Draining(Refused):
    """The receiver finishes what it has, and takes nothing new; another one may."""

    retryable = True


class StartFailed(ActorError):
    """``child`` could not start."""

    def __init__(self, child: str, reason: Reason) -> None:
        self.child = child
        self.reason = reason
        super().__init__(f"{child} could not start: {describe(reason)}")


class Decline(ActorError):
    """Raise it in ``started`` (or ``__init__``): this actor has nothing to do here, and that is no failure.

    Its supervisor goes on without it, keeps its spec (not a temporary child's) and starts it when asked to, or together
    with its group. OTP's ``ignore``.

    >>> raise Decline("there is no GPU on this machine")
    Traceback (most recent call last):
    palmette.actors.errors.Decline: there is no GPU on this machine
    """


class NameTaken(ActorError):
    """A name is unique among the living."""


class NodeError(ActorError):
    """A process node could not be started, or a message cannot cross to it."""
