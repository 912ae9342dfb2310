"""A node's life: it runs one actor, and everything that the actor starts below itself, and answers to its head.

Nothing here knows what carries the link or what the node runs in: a process of its own (:mod:`palmette.actors.node`),
or a place in a simulation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from palmette.actors import wire
from palmette.actors.actor import Actor
from palmette.actors.arguments import decode_arguments, initializer
from palmette.actors.cluster.placer import Placer, part_of
from palmette.actors.codec import class_named
from palmette.actors.errors import StartFailed
from palmette.actors.exits import reason_of
from palmette.actors.fingerprint import check_interface
from palmette.actors.introspection import ExitRecord
from palmette.actors.link import Link
from palmette.actors.naming import FarRegistry
from palmette.actors.proxy import Direct
from palmette.actors.registry import REGISTRY
from palmette.actors.serving import serve
from palmette.actors.starting import StartOptions
from palmette.actors.system import System

LAST_WORDS_SECONDS: Final = 10.0
"""For the head to take in the last frames of a node."""


class NodeSystem(System):
    """A node's part of the system: exits below its actor are news for the head."""

    given = StartOptions()
    """How its own actor was started."""
    _head: Link | None = None
    _path = ""

    def report_to(self, head: Link, path: str) -> None:
        """From now on; ``path`` is the node's own actor."""
        self._head, self._path = head, path

    def make_placer(self) -> Placer:
        """A node gives out only what it was itself given."""
        return part_of(self.given.on, self.given.placed)

    def adopt_exit(self, record: ExitRecord) -> None:
        super().adopt_exit(record)
        # The end of the node's own actor is that of the process. News gives way to messages.
        if self._head is not None and record.path != self._path and not self._head.is_congested():
            self._head.write(wire.Exited(record))


class NodeLife(ABC):
    """See the module's text."""

    system: NodeSystem
    """Made by the subclass, on the node's own loop."""
    link: Link
    far = False
    """Whether the program is on another host."""

    def __init__(self) -> None:
        self.early: list[wire.Frame] | None = None
        """Frames that came right behind the order to start, before the actor's address exists."""

    # --- what differs ----------------------------------------------------------------------------------------------

    @abstractmethod
    def move_in(self) -> None:
        """Called once the node knows what it is for, before that is imported."""

    @abstractmethod
    def last_acts(self) -> None:
        """Called when the actor has ended and the head has heard of it."""

    @abstractmethod
    def leave(self) -> None:
        """End the node now, with all that it started. The head sees the broken link."""

    # --- what happens ----------------------------------------------------------------------------------------------

    def meet_head(self, *, written: int) -> Link:
        """The node's end of the connection to its head, over which it has sent ``written`` frames."""
        self.link = Link(self.system, self._on_frame, self._on_lost, trusting=True, written=written)
        self.link.trust("the head", 0)
        self.system.uplink = self._elsewhere
        self.system.naming.join(self.link)
        return self.link

    def _elsewhere(self, path: str) -> Direct:
        stand_in = FarRegistry if path == REGISTRY else Direct
        return stand_in(self.system, self.link, path)

    def _on_lost(self, link: Link, why: str) -> None:
        self.leave()

    def _on_frame(self, link: Link, frame: wire.Frame) -> None:
        if self.early is not None:
            self.early.append(frame)
        elif isinstance(frame, wire.StartActor):
            self.early = []
            self.life = self.system.loop.create_task(self._live(frame))
            self.system.loop.call_soon(self._catch_up)  # after the task's first step, which makes the actor's address
        elif not serve(self.system, link, frame):
            link.fail(f"it sent a {type(frame).__name__} out of turn")

    def _catch_up(self) -> None:
        early, self.early = self.early or [], None
        for frame in early:
            self._on_frame(self.link, frame)

    async def _live(self, order: wire.StartActor) -> None:
        system = self.system
        slot = system.own_slot(order.path)
        slot.incarnation = order.incarnation - 1
        slot.dynamic = order.dynamic
        system.naming.load(order.names)
        system.report_to(self.link, order.path)
        system.given = order.options
        self.move_in()
        try:
            cls = class_named(order.actor, Actor)
            check_interface(cls, order.interface)
            kwargs = decode_arguments(initializer(cls), order.arguments, system)
            cell = await system.start_actor(slot, None, cls, (), kwargs, order.options)
        except StartFailed as failed:
            self.link.write(wire.NotStarted(order.path, failed.child, failed.reason))
        except BaseException as error:  # noqa: BLE001 - whatever keeps the actor from starting is the head's to hear
            self.link.write(wire.NotStarted(order.path, order.path, reason_of(error)))
        else:
            self.link.write(wire.Started(order.path))
            self.link.write(wire.Ended(order.path, await cell.ended()))
        await self.link.drain(LAST_WORDS_SECONDS, until_heard=self.far)
        self.last_acts()
        self.leave()
