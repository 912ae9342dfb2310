"""Child specifications: what to start, and what to do when it ends.

``child(Counter, start=10, name="counter", restart="permanent")`` describes one child. Arguments that the supervisor
does not know go to the actor's ``__init__`` and are checked against its signature here, before anything starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, cast

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.cluster.needs import Needs
from palmette.actors.errors import NameTaken, StartFailed
from palmette.actors.exits import reason_of
from palmette.actors.mailbox import Overflow
from palmette.actors.starting import StartOptions
from palmette.supervisors.errors import BadSpec
from palmette.supervisors.parameters import parameters_of
from palmette.supervisors.policy import Backoff, Directive, Restart

if TYPE_CHECKING:
    from palmette.actors.cell import Cell
    from palmette.actors.slot import Slot, Target
    from palmette.actors.system import System

A_co = TypeVar("A_co", bound=Actor, covariant=True)
A = TypeVar("A", bound=Actor)

Isolation = Literal["inline", "process"]
Shutdown = float | Literal["brutal", "infinity"]

WORKER_SHUTDOWN: Final = 5.0
"""Seconds, as in OTP."""

NAME: Final = re.compile(r"[A-Za-z0-9_.:@+=,-]+")


WHAT_TO_START: Final = ("actor", "args", "kwargs")
"""The fields of a spec that say what to start; the others say how."""


class _Wired(msgspec.Struct, frozen=True):
    """A spec on its way to another process."""

    actor: str
    arguments: bytes
    options: dict[str, Any]


class ChildSpec(msgspec.Struct, Generic[A_co], frozen=True, kw_only=True):
    """One child. Build it with :func:`child` (workers) or ``Supervisor.spec`` (supervisors)."""

    actor: type[A_co]
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = {}
    name: str
    restart: Restart = "permanent"
    shutdown: Shutdown = WORKER_SHUTDOWN
    """Seconds from the request to end until the kill; ``brutal`` kills at once, ``infinity`` waits."""
    significant: bool = False
    resurrect: bool = False
    """Whether a child that completed, or was stopped by ``terminate_child``, starts again when its group restarts (as
    in OTP): for one whose result rests on a sibling's."""
    isolation: Isolation = "inline"
    on: Needs | None = None
    """What its host must offer; for a child with a process of its own."""
    backoff: Backoff | None = None
    rules: dict[str, Directive] = {}
    """Exit reasons that are treated specially, by exception class name, ``retryable``, or the reason's tag."""
    register: str | None = None
    """A registered name of its own. Children that no dynamic supervisor is above of are registered by ``name``."""
    mailbox: int | None = None
    overflow: Overflow = "block"
    start_timeout: float = 60.0
    supervisor: bool = False
    dynamic: bool = False
    """Whether what lives below is started at run time, so that names repeat and are not registered."""

    @property
    def _where(self) -> str:
        """What to call it in a message."""
        return f"child {self.name!r} ({self.actor.__name__})"

    def __repr__(self) -> str:
        # Without the arguments: a URL with a password, a key, may be among them.
        on = "" if self.on is None else f" on {self.on}"
        return f"<child {self.name!r}: {self.actor.__name__}, {self.restart}, {self.isolation}{on}>"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BadSpec(f"{self._where}: a name is letters, digits and any of _.:@+=,- so that paths stay readable")
        if self.restart not in ("permanent", "transient", "temporary"):
            raise BadSpec(f"{self._where}: restart is permanent, transient or temporary, not {self.restart!r}")
        if self.isolation not in ("inline", "process"):
            raise BadSpec(f"{self._where}: isolation is inline or process, not {self.isolation!r}")
        if self.on is not None and self.isolation != "process":
            raise BadSpec(f"{self._where}: on={self.on} places a process; leave isolation out, or say 'process'")
        if isinstance(self.shutdown, str):
            if self.shutdown not in ("brutal", "infinity"):
                raise BadSpec(f"{self._where}: shutdown is seconds, 'brutal' or 'infinity', not {self.shutdown!r}")
        elif not self.shutdown > 0:
            raise BadSpec(f"{self._where}: shutdown is more than 0 seconds, not {self.shutdown!r}; or 'brutal'")
        if self.significant and self.restart == "permanent":
            raise BadSpec(f"{self._where}: a permanent child never ends by itself, so it cannot be significant")
        if self.mailbox is not None and self.mailbox < 1:
            raise BadSpec(
                f"{self._where}: a mailbox holds at least one message, not {self.mailbox!r}; None has no bound"
            )
        if self.overflow not in ("block", "reject", "drop_oldest"):
            raise BadSpec(f"{self._where}: overflow is block, reject or drop_oldest, not {self.overflow!r}")
        if not self.start_timeout > 0:
            raise BadSpec(f"{self._where}: start_timeout is more than 0 seconds, not {self.start_timeout!r}")
        for rule, directive in self.rules.items():
            if directive not in ("restart", "backoff", "stop", "escalate"):
                raise BadSpec(
                    f"{self._where}: the rule for {rule!r} is {directive!r}; use restart, backoff, stop, escalate"
                )
        parameters = parameters_of(self.actor)
        if not parameters.obviously_fit(self.args, self.kwargs):
            try:
                parameters.signature.bind(*self.args, **self.kwargs)
            except TypeError as error:
                raise BadSpec(f"{self._where}: {error}; known options of a child are {OPTIONS}") from None

    async def start(self, system: System, slot: Slot, parent: Cell | None) -> Target:
        """Start an incarnation in ``slot`` and return once it may be talked to. Raises StartFailed."""
        slot.dynamic = self.dynamic or (parent is not None and parent.slot.dynamic)
        name = self.register
        if name is None and parent is not None and not parent.slot.dynamic:
            name = self.name
        if name is None or slot.path == "/":
            return await self._start(system, slot, parent)
        try:
            await system.claim(name, slot, self.start_timeout)
            return await self._start(system, slot, parent)
        except NameTaken as error:
            raise StartFailed(slot.path, reason_of(error)) from None
        finally:
            system.settle(slot)

    async def _start(self, system: System, slot: Slot, parent: Cell | None) -> Target:
        options = StartOptions(
            mailbox=self.mailbox,
            overflow=self.overflow,
            start_timeout=self.start_timeout,
            stop_timeout=self._stop_timeout(),
            kind=self.actor.__name__,
            on=self.on,
        )
        if self.isolation == "process":
            return await system.nodes.start_child(slot, parent, self.actor, self.args, self.kwargs, options)
        return await system.start_actor(slot, parent, self.actor, self.args, self.kwargs, options)

    def to_wire(self) -> dict[str, object]:
        """This spec as plain data, for a supervisor in another process. Raises NodeError if an argument cannot travel.

        The arguments are encoded, and decoded over there, against the signature of the actor's ``__init__``.
        """
        from palmette.actors.arguments import encode_arguments, initializer
        from palmette.actors.codec import name_of

        options = {name: getattr(self, name) for name in self.__struct_fields__ if name not in WHAT_TO_START}
        return {
            "actor": name_of(self.actor),
            "arguments": encode_arguments(initializer(self.actor), self.args, self.kwargs),
            "options": options,
        }

    @classmethod
    def from_wire(cls, data: object, system: System) -> Self:
        """The counterpart of :meth:`to_wire`. Raises NodeError, BadCall or BadSpec."""
        from palmette.actors.arguments import decode_arguments, initializer
        from palmette.actors.codec import class_named

        wired = msgspec.convert(data, type=_Wired)
        actor = class_named(wired.actor, Actor)
        types = {field.name: field.type for field in msgspec.structs.fields(cls)}
        options = {name: msgspec.convert(value, type=types[name]) for name, value in wired.options.items()}
        kwargs = decode_arguments(initializer(actor), wired.arguments, system)
        return cls(actor=cast("type[A_co]", actor), kwargs=kwargs, **options)

    def _stop_timeout(self) -> float | None:
        # `brutal` is about being stopped from outside; a child that ends by itself has the usual time to clean up.
        if isinstance(self.shutdown, str):
            return None if self.shutdown == "infinity" else WORKER_SHUTDOWN
        return float(self.shutdown)


OPTIONS: Final = ", ".join(
    f.name
    for f in msgspec.structs.fields(ChildSpec)
    if f.name not in ("actor", "args", "kwargs", "supervisor", "dynamic")
)


def child(
    actor: type[A],
    /,
    *args: object,
    name: str,
    restart: Restart = "permanent",
    shutdown: Shutdown = WORKER_SHUTDOWN,
    significant: bool = False,
    resurrect: bool = False,
    isolation: Isolation | None = None,
    on: Needs | None = None,
    backoff: Backoff | None = None,
    rules: Mapping[str, Directive] | None = None,
    register: str | None = None,
    mailbox: int | None = None,
    overflow: Overflow = "block",
    start_timeout: float = 60.0,
    **kwargs: object,
) -> ChildSpec[A]:
    """Describe a child: an actor class, its arguments, and how to supervise it.

    It lives in this process (``isolation="inline"``, the default), in one of its own (``"process"``), or in one of its
    own on a host that offers what it needs (``on=needs(gpu=1)``).

    Raises:
        BadSpec: an option makes no sense, or the arguments do not fit the actor's ``__init__``.
    """
    return ChildSpec(
        actor=actor,
        args=args,
        kwargs=kwargs,
        name=name,
        restart=restart,
        shutdown=shutdown,
        significant=significant,
        resurrect=resurrect,
        isolation=isolation or ("inline" if on is None else "process"),
        on=on,
        backoff=backoff,
        rules=dict(rules or {}),
        register=register,
        mailbox=mailbox,
        overflow=overflow,
        start_timeout=start_timeout,
    )
