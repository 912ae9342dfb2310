"""The proxy as an actor: it opens sessions for programs, serves them on loopback, and tells what happened in them.

A program never sees a key: it has an address and a token, good for its session only and for nothing when that is
closed: by whoever opened it, or by its owner's death. When the proxy dies, all its sessions have died with it.

What happens is read with :meth:`Proxy.events`, from anywhere in the system, as a harness does it with a
:class:`~palmette.agents.proxy.line.ProxyLine`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import msgspec

from palmette.actors import Actor, Down, Ref, Refused, endpoint, time_left
from palmette.agents.conversation import ToolSchema
from palmette.agents.limiter import Limiter
from palmette.agents.proxy.app import ProxyApp
from palmette.agents.proxy.records import Events, ProxySession, Upstream
from palmette.agents.proxy.session import Session
from palmette.agents.proxy.upstream import Line
from palmette.agents.serving import listen, serve

PATIENCE = 20.0
"""Seconds that an endpoint which waits for something does so at most."""


class ProxyStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a proxy."""

    port: int
    sessions: int
    requests: int
    """Being answered."""


class Proxy(Actor):
    """Passes calls on to ``upstream``.

    Args:
        upstream: Where calls go. The key is read from the environment of the process that the proxy runs in.
        limiter: The registered name of the limiter that is asked before each call.
    """

    def __init__(self, upstream: Upstream, limiter: str | None = None) -> None:
        self._upstream = upstream
        self._limiter = limiter
        self._sessions: dict[str, Session] = {}
        self._by_monitor: dict[int, str] = {}
        self._broken: asyncio.Future[None] = self.system.loop.create_future()
        self._port = 0

    async def started(self) -> None:
        # The first use of the SDK imports it, which takes half a second.
        line = await asyncio.to_thread(Line, self._upstream)
        listener = listen()
        self._port = int(listener.getsockname()[1])
        self.start_task(self._serve(line, listener))
        self.start_task(self._break_down())

    async def _serve(self, line: Line, listener: socket.socket) -> None:
        app = ProxyApp(self._upstream, line, self._sessions, self._find_limiter, self._break)
        try:
            await serve(app, listener, name="palmette-model-proxy")
        finally:  # however the actor ends
            for session in self._sessions.values():
                session.close()
            await line.close()

    @endpoint
    async def open(
        self,
        name: str,
        owner: Ref[Actor] | None = None,
        tools: list[ToolSchema] | None = None,
        gated: bool = False,
    ) -> ProxySession:
        """A session for one program.

        Args:
            name: For people: letters, digits, and any of ``_.-``.
            owner: An actor whose death closes it, and as whom its calls take their turns at the limiter.
            tools: That the program may call through the proxy.
            gated: Whether each call waits for :meth:`go_on`.

        Raises:
            Refused: a name that does not fit into an address.
        """
        if not name.replace("_", "a").replace(".", "a").replace("-", "a").isalnum() or not name.isascii():
            raise Refused(f"a session's name is letters, digits, '_', '.' and '-', got {name!r}")
        session = Session(name, owner, tools or [], gated=gated)
        self._sessions[session.id] = session
        if owner is not None:
            self._by_monitor[self.monitor(cast("Ref[object]", owner))] = session.id
        return ProxySession(id=session.id, token=session.token, port=self._port)

    @endpoint
    async def close(self, session: str) -> None:
        """Refuse its token from now on. Twice is fine; its last events are read before."""
        self._close(session)
        for monitor in [number for number, of in self._by_monitor.items() if of == session]:
            del self._by_monitor[monitor]
            self.demonitor(monitor)

    @endpoint
    async def events(self, session: str, after: int) -> Events:
        """What happened from event number ``after`` on, as soon as there is something; those before it are forgotten.

        Raises:
            Refused: there is no such session.
        """
        return self.answer_later(self._session(session).events(after, _patience()))

    @endpoint
    async def happened(self, session: str) -> int:
        """How many events there have been."""
        return self._session(session).happened

    @endpoint
    async def go_on(self, session: str, number: int) -> None:
        """Let a call of a gated session through."""
        self._session(session).go_on(number)

    @endpoint
    async def answer_tool(self, session: str, number: int, text: str, failed: bool = False) -> None:
        """Tell the program what a tool that it called has to say."""
        self._session(session).answer(number, text, failed=failed)

    @endpoint
    async def set_tools(self, session: str, tools: list[ToolSchema]) -> None:
        """These instead of the former; the program learns of it at once."""
        self._session(session).set_tools(tools)

    @endpoint
    async def tools_taken(self, session: str) -> bool:
        """Whether the program has the present tools at work: it is waited for, for half of the call's deadline at most.

        Raises:
            Refused: there is no such session.
        """
        return self.answer_later(self._session(session).tools_taken(_patience()))

    @endpoint
    async def statistics(self) -> ProxyStatistics:
        """How it stands."""
        return self._statistics()

    async def receive(self, message: object) -> None:
        if isinstance(message, Down):
            self._close(self._by_monitor.pop(message.monitor))
        else:
            await super().receive(message)

    def describe_state(self) -> object:
        return self._statistics()

    def _statistics(self) -> ProxyStatistics:
        running = sum(len(session.running) for session in self._sessions.values())
        return ProxyStatistics(port=self._port, sessions=len(self._sessions), requests=running)

    def _session(self, name: str) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise Refused(f"there is no session {name!r} here; it was closed")
        return session

    def _close(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            session.close()

    def _find_limiter(self) -> Ref[Limiter] | None:
        return None if self._limiter is None else self.system.whereis(self._limiter, Limiter)

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _break_down(self) -> None:
        """What a request's handler should not have raised is the proxy's own crash."""
        await self._broken


def _patience() -> float:
    left = time_left()
    return PATIENCE if left is None else min(PATIENCE, left / 2)
