"""Stand-ins for actors that live in another process: they pass everything on over a link.

:mod:`palmette.actors.serving` is the counterpart on the other side.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from palmette.actors import wire
from palmette.actors.arguments import encode_arguments
from palmette.actors.codec import encode_message
from palmette.actors.errors import MailboxFull, NodeError, Refused
from palmette.actors.exits import NoProcess, Reason
from palmette.actors.messages import NO_KEYWORDS, Request
from palmette.actors.slot import Linked, Slot, Watcher
from palmette.actors.verbs import DRAIN

if TYPE_CHECKING:
    from palmette.actors.link import Link
    from palmette.actors.ref import Ref
    from palmette.actors.system import System


class Proxy(ABC):
    """The actor at ``path`` in another process. Subclasses know the way there."""

    kind = "?"

    def __init__(self, system: System, path: str) -> None:
        self.system = system
        self.path = path
        self.watchers: dict[tuple[Watcher, int], tuple[Link, int] | None] = {}
        """Who watches it, and what was asked for on which link for that."""
        self.linked: dict[Linked, tuple[Link, int]] = {}
        """Who is tied to it, over which link, and by which number."""
        self._ended: asyncio.Future[Reason] | None = None
        self._address: Ref[object] | None = None
        """Held while somebody watches or is linked: to undo that one must find this same stand-in again."""

    @property
    def state(self) -> str:
        return "running"

    @abstractmethod
    def way(self) -> Link | None:
        """The link to it, while there is one."""

    def gone(self) -> Reason:
        """Why there is no way to it."""
        return NoProcess(self.path)

    def request(self, request: Request) -> None:
        way = self.way()
        if way is None:
            self.system.undeliverable(self.path, request, self.gone())
            return
        try:
            arguments = encode_arguments(request.endpoint.function, request.args, request.kwargs)
            if request.reply is None and way.is_congested():
                raise MailboxFull(f"the link to {self.path} is congested; slow down")
        except (Refused, NodeError) as error:
            if not request.fail(error):
                raise
            return
        way.call(self.path, request, arguments)

    def post(self, message: object) -> None:
        name, encoded = encode_message(message)
        way = self.way()
        if way is None:
            self.system.dead_letter(self.path, message)
        else:
            way.write(wire.Send(self.path, name, encoded))

    def stop(self, reason: Reason) -> None:
        self._tell(wire.Stop(self.path, reason))

    def drain(self, seconds: float) -> None:
        way = self.way()
        if way is not None:
            arguments = encode_arguments(DRAIN.function, (seconds,), {})
            way.call(self.path, Request(DRAIN, (), NO_KEYWORDS, None, None), arguments)

    def kill(self, reason: Reason) -> None:
        self._tell(wire.Kill(self.path, reason))

    def _tell(self, frame: wire.Frame) -> None:
        way = self.way()
        if way is not None:
            way.write(frame)

    # --- its end, to those who asked -----------------------------------------------------------------------------

    def add_monitor(self, watcher: Watcher, monitor: int) -> None:
        # Each is asked for by itself: one made now must not be told of an end whose news is under way.
        self._address = self.system.ref_at(self.path, object)
        tell = partial(self._fell, watcher, monitor)
        way = self.way()
        if way is None:
            self.watchers[(watcher, monitor)] = None
            self.system.loop.call_soon(tell, self.gone())
        else:
            self.watchers[(watcher, monitor)] = (way, way.monitor(self.path, tell))

    def remove_monitor(self, watcher: Watcher, monitor: int) -> None:
        asked = self.watchers.pop((watcher, monitor), None)
        if asked is not None:
            way, number = asked
            way.demonitor(number)
        self._let_go()

    def _fell(self, watcher: Watcher, monitor: int, reason: Reason) -> None:
        if (watcher, monitor) in self.watchers:
            del self.watchers[(watcher, monitor)]
            watcher.down(self.system.ref_at(self.path, object), reason, monitor)
            self._let_go()

    def add_link(self, other: Linked) -> None:
        way = self.way()
        if way is None:
            other.remove_link(self)
            other.exit_signal(self.system.ref_at(self.path, object), self.gone())
        elif other not in self.linked:
            self._address = self.system.ref_at(self.path, object)
            self.linked[other] = (way, way.ties.make(self, other))

    def remove_link(self, other: Linked) -> None:
        made = self.linked.get(other)
        if made is not None:
            way, number = made
            way.ties.undo(number, self.path, other.path)
            self.forget(other)

    def forget(self, other: Linked) -> None:
        """That link has ended."""
        self.linked.pop(other, None)
        self._let_go()

    def _let_go(self) -> None:
        if not self.watchers and not self.linked and self._ended is None:
            self._address = None

    def exit_signal(self, ref: Ref[object], reason: Reason) -> None:
        for other, (way, number) in self.linked.items():
            if other.path == ref.path:
                way.write(wire.ExitSignal(self.path, ref.path, reason, number, False))

    def link_ended(self, ref: Ref[object], reason: Reason) -> None:
        """Passed on: the one at the other end of a link to this one has ended."""
        self.exit_signal(ref, reason)
        for other in [other for other in self.linked if other.path == ref.path]:
            self.remove_link(other)

    def ended(self) -> asyncio.Future[Reason]:
        if self._ended is None:
            self._ended = self.system.loop.create_future()
            self.watch()
        return self._ended

    def watch(self) -> None:
        """Ask once to be told of the end."""
        self._address = self.system.ref_at(self.path, object)
        way = self.way()
        if way is None:
            self.system.loop.call_soon(self.announce, self.gone())
        else:
            way.monitor(self.path, self.announce)

    def announce(self, reason: Reason) -> None:
        """The actor has ended: tell everybody who waits for that."""
        ended, self._ended = self._ended, None
        self._let_go()
        if ended is not None and not ended.done():
            ended.set_result(reason)


class Direct(Proxy):
    """What lives on the other side of one link, and ends with it."""

    def __init__(self, system: System, link: Link, path: str) -> None:
        super().__init__(system, path)
        self.link = link

    def way(self) -> Link | None:
        return self.link if self.link.lost is None else None

    def gone(self) -> Reason:
        return self.link.lost or NoProcess(self.path)


class Inner(Proxy):
    """An actor below a node's own, seen from the head: whichever process lives at ``above`` is the way to it."""

    def __init__(self, system: System, above: Slot, path: str) -> None:
        super().__init__(system, path)
        self._above = above

    def way(self) -> Link | None:
        above = self._above.target
        return above.way() if isinstance(above, Proxy) else None
