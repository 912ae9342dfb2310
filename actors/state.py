"""Looking at an actor's state from outside, and replacing it: OTP's ``sys:get_state`` and ``sys:replace_state``.

>>> import asyncio
>>> from palmette.actors import Actor, System
>>> from palmette.supervisors import Supervisor, child
>>> class Counter(Actor):
...     def __init__(self) -> None:
...         self.value = 41
>>> async def main() -> None:
...     async with System.start(Supervisor.spec(children=[child(Counter, name="counter")])) as system:
...         counter = system.whereis("counter", Counter)
...         await counter.replace_state(lambda counter: {"value": counter.value + 1})
...         print((await counter.state()).value)
>>> asyncio.run(main())
{'value': '42'}

The kernel answers, on the system lane: also for an actor that is suspended, or whose mailbox is full. A state is looked
at as it is, in the middle of a handler if need be; it is replaced only between two handlers, which rely on it.
"""

from __future__ import annotations

import asyncio
import re
import reprlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

import msgspec

from palmette.actors.deadlines import DEFAULT_CALL_SECONDS, get_deadline
from palmette.actors.errors import ActorDied, Refused
from palmette.actors.exits import NoProcess
from palmette.actors.expiry import expire
from palmette.actors.lane import Job

if TYPE_CHECKING:
    from palmette.actors.actor import Actor
    from palmette.actors.cell import Cell

_SECRET: Final = re.compile("key|token|secret|password|credential|authorization|cookie", re.IGNORECASE)
"""Names of what is not shown, numbers apart: what is looked at ends up on terminals and in reports."""
_URL_SECRET: Final = re.compile(r"://[^/@\s]+@")

_brief = reprlib.Repr()
_brief.maxother = _brief.maxstring = _brief.maxlong = 200
_brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxdict = _brief.maxdeque = 20


class ActorState(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor's present incarnation is like inside."""

    path: str
    kind: str
    """The actor's class."""
    incarnation: int
    state: str
    """As ``statistics`` has it: ``running``, ``suspended`` …"""
    value: object
    """What the actor's ``describe_state`` returned. From another process, a Struct arrives as plain data."""


def attributes_of(actor: Actor) -> dict[str, str]:
    """The attributes of an actor with what they look like, abridged; texts that may be secrets are left out."""
    return {name: _looks(_without_secrets(name, value)) for name, value in _attributes(actor)}


def state_of(cell: Cell) -> ActorState:
    """A look inside an inline actor.

    Raises:
        Refused: its ``describe_state`` raised; the actor does not notice.
    """
    actor = cell.actor
    if actor is None:
        raise ActorDied(cell.slot.path, NoProcess(cell.slot.path))
    try:
        value = actor.describe_state()
    except Exception as error:
        raise Refused(f"describe_state() of {cell.slot.path} raised {type(error).__name__}: {error}") from error
    return ActorState(path=cell.slot.path, kind=cell.kind, incarnation=cell.incarnation, state=cell.state, value=value)


async def replace_state(cell: Cell, function: Callable[[Actor], object]) -> None:
    """Set the attributes that ``function`` returns for ``cell``'s actor, when no handler runs.

    Raises:
        Refused: see :func:`replace`.
        ActorDied: it ended before.
        DeadlineExceeded: its present handler did not end in time.
    """
    loop = cell.system.loop
    done: asyncio.Future[object] = loop.create_future()

    def work() -> None:
        if cell.actor is not None:
            replace(cell.actor, function)

    at = get_deadline()
    at = loop.time() + DEFAULT_CALL_SECONDS if at is None else at
    timer = loop.call_at(at, expire, done, cell.slot.path, "replace_state")
    cell.system_lane.submit(Job(work, done))
    try:
        await done
    finally:
        timer.cancel()


def replace(actor: Actor, function: Callable[[Actor], object]) -> None:
    """Set the attributes that ``function`` returns for ``actor``, all or none.

    Raises:
        Refused: it raised, or returned something else than attributes that the actor has. Attributes that it set by
            itself are put back; what it changed inside of one cannot be.
    """
    before = dict(_attributes(actor))
    try:
        changes = _checked(actor, before, function(actor))
        for name, value in changes.items():
            setattr(actor, name, value)
    except BaseException as error:
        after = dict(_attributes(actor))
        for name in after.keys() - before.keys():
            delattr(actor, name)
        for name, value in before.items():
            if name not in after or after[name] is not value:
                setattr(actor, name, value)
        if isinstance(error, Refused):
            raise
        raise Refused(f"the function raised {type(error).__name__}: {error}; {actor.path} is as it was") from error


def _checked(actor: Actor, before: dict[str, object], changes: object) -> dict[str, object]:
    if not isinstance(changes, Mapping):
        looks = _looks(changes)
        if isinstance(changes, Coroutine):
            changes.close()
        raise Refused(
            "replace_state takes a plain function that returns the attributes to replace, as {'name': value}; "
            f"this one returned {looks}"
        )
    found = {str(name): value for name, value in cast("Mapping[object, object]", changes).items()}
    for name in found:
        if name not in before and callable(getattr(type(actor), name, len)):
            raise Refused(f"{type(actor).__name__} has no attribute {name!r}; it has: {', '.join(before) or 'none'}")
    return found


def _attributes(actor: Actor) -> Iterator[tuple[str, object]]:
    for cls in type(actor).__mro__:
        slots: str | Iterable[str] = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(actor, name):
                yield name, getattr(actor, name)
    for name, value in list(vars(actor).items()):
        if name != "_cell":
            yield name, value


class _Hidden:
    def __repr__(self) -> str:
        return "<hidden>"


def _without_secrets(name: object, value: object) -> object:
    if isinstance(name, str) and _SECRET.search(name) and not isinstance(value, int | float | None):
        return _Hidden()
    if isinstance(value, dict):
        return {key: _without_secrets(key, item) for key, item in cast("dict[object, object]", value).items()}
    return value


def _looks(value: object) -> str:
    try:
        return _URL_SECRET.sub("://<hidden>@", _brief.repr(value))
    except Exception as error:  # noqa: BLE001 - a value that cannot show itself must not hide the others
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
