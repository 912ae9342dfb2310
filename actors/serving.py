"""The counterpart of proxies: what frames from the other side of a link ask of actors that live on this one.

What local actors owe to the other side (a word when one ends) is kept in :class:`Served`, and forgotten when the link
is lost. (The links of actors are :mod:`palmette.actors.ties`'.)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from palmette.actors import wire
from palmette.actors.arguments import decode_arguments, encode_result
from palmette.actors.cell import Cell
from palmette.actors.codec import decode_message
from palmette.actors.errors import ActorDied, NodeError, Refused
from palmette.actors.exits import NoProcess, Reason
from palmette.actors.expiry import expire
from palmette.actors.full_tree import full_tree
from palmette.actors.messages import Request
from palmette.actors.proxy import Proxy
from palmette.actors.refusals import failed
from palmette.actors.registry import Registry
from palmette.actors.slot import Target
from palmette.actors.verbs import VERBS, answer

if TYPE_CHECKING:
    from palmette.actors.endpoints import Endpoint
    from palmette.actors.link import Link
    from palmette.actors.ref import Ref
    from palmette.actors.system import System


class Served:
    """What this side owes to the other, by the frames that asked for it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.watching: dict[int, tuple[Target, _FarWatcher]] = {}
        self.tasks: dict[asyncio.Task[None], None] = {}

    def release(self) -> None:
        """The link is lost."""
        for monitor, (target, watcher) in self.watching.items():
            target.remove_monitor(watcher, monitor)
        self.watching.clear()
        for task in self.tasks:
            task.cancel()


class _FarWatcher:
    """Somebody on the other side who monitors an actor here."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def down(self, ref: Ref[object], reason: Reason, monitor: int) -> None:
        self.served.watching.pop(monitor, None)
        self.served.link.write(wire.Fell(monitor, reason))


def serve(system: System, link: Link, frame: wire.Frame) -> bool:
    """Carry out a frame that concerns a local actor; false if it is of another kind."""
    served = link.served = link.served or Served(link)
    match frame:
        case wire.Call() | wire.Cast():
            _serve_request(system, link, frame)
        case wire.Send():
            _serve_send(system, frame)
        case wire.Monitor(id, path):
            target = system.target_at(path)
            if target is None:
                link.write(wire.Fell(id, NoProcess(path)))
            else:
                watcher = _FarWatcher(served)
                served.watching[id] = (target, watcher)
                target.add_monitor(watcher, id)
        case wire.Demonitor(id):
            target, watcher = served.watching.pop(id, (None, None))
            if target is not None and watcher is not None:
                target.remove_monitor(watcher, id)
        case wire.Tie() | wire.Untie() | wire.ExitSignal():
            link.ties.take(frame)
        case wire.Stop(path, reason):
            target = system.target_at(path)
            if target is not None:
                target.stop(reason)
        case wire.Kill(path, reason):
            target = system.target_at(path)
            if target is not None:
                target.kill(reason)
        case wire.AskTree(id, path, seconds):
            task = system.loop.create_task(_serve_tree(system, link, id, path, seconds))
            served.tasks[task] = None
            task.add_done_callback(served.tasks.pop)
        case _:
            return system.naming.take(link, frame)
    return True


async def _serve_tree(system: System, link: Link, number: int, path: str, seconds: float) -> None:
    slot = system.slots.get(path)
    # Nodes below this one get a little less time than this one has.
    tree = None if slot is None else await full_tree(slot, 0.8 * seconds)
    link.write(wire.TreeIs(number, tree))


def _serve_send(system: System, frame: wire.Send) -> None:
    target = system.target_at(frame.path)
    if isinstance(target, Proxy):
        _pass_on(system, target, frame)
        return
    try:
        message = decode_message(frame.struct, frame.message, system)
    except NodeError as error:
        system.dead_letter(frame.path, error)
        return
    if target is None:
        system.dead_letter(frame.path, message)
    else:
        target.post(message)


def _serve_request(system: System, link: Link, frame: wire.Call | wire.Cast) -> None:
    target = system.target_at(frame.path)
    if isinstance(target, Proxy):
        if isinstance(frame, wire.Cast):
            _pass_on(system, target, frame)
        else:
            _relay(link, target, frame)
        return
    try:
        if target is None:
            raise ActorDied(frame.path, NoProcess(frame.path))
        assert isinstance(target, Cell)
        verb = VERBS.get(frame.endpoint)
        endpoint = verb or target.endpoint_named(frame.endpoint)
        kwargs = decode_arguments(endpoint.function, frame.arguments, system)
        if isinstance(frame, wire.Cast):
            request = Request(endpoint, (), kwargs, None, None)
        else:
            request = Request(endpoint, (), kwargs, *_promise(system, link, frame, endpoint))
        if verb is not None:
            answer(target, request)
        elif isinstance(target.actor, Registry):
            answer(target.actor, request)  # in step with the news of deaths on this link
        else:
            target.request(request)
    except (ActorDied, Refused, NodeError) as error:
        if isinstance(frame, wire.Cast):
            system.dead_letter(frame.path, f"{frame!r}: {error}")
        else:
            link.write(failed(frame.id, frame.path, error))


def _promise(
    system: System, link: Link, frame: wire.Call, endpoint: Endpoint[object, ..., object]
) -> tuple[asyncio.Future[object], float]:
    """A future whose result is the answer to ``frame``, and its deadline."""
    future: asyncio.Future[object] = system.loop.create_future()
    at = system.loop.time() + frame.seconds
    timer = system.loop.call_at(at, expire, future, frame.path, frame.endpoint)

    def answer(done: asyncio.Future[object]) -> None:
        timer.cancel()
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            try:
                link.write(wire.Reply(frame.id, encode_result(endpoint, done.result())))
                return
            except NodeError as cannot:
                error = NodeError(f"{frame.path}: the result of {endpoint.function.__qualname__}: {cannot}")
        link.write(failed(frame.id, frame.path, error))

    future.add_done_callback(answer)
    return future, at


# --- the head, between two of its nodes ----------------------------------------------------------------------------


def _pass_on(system: System, target: Proxy, frame: wire.Cast | wire.Send) -> None:
    way = target.way()
    if way is None or (isinstance(frame, wire.Cast) and way.is_congested()):
        system.dead_letter(frame.path, frame)
    else:
        way.write(frame)


def _relay(source: Link, target: Proxy, frame: wire.Call) -> None:
    """Pass a call on; it is neither decoded nor kept here."""
    way = target.way()
    if way is None:
        source.write(failed(frame.id, frame.path, ActorDied(frame.path, target.gone())))
        return

    def back(answer: wire.Reply | wire.CallFailed) -> None:
        if isinstance(answer, wire.CallFailed) and not answer.path:  # of the link itself
            answer = msgspec.structs.replace(answer, path=frame.path)
        source.write(msgspec.structs.replace(answer, id=frame.id))

    way.relay(frame, back)
