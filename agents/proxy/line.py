"""A session of the proxy as a harness uses it: events in order, tools run, calls held up while the agent is paused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Self

from palmette.actors import Actor, Ref, Refused, deadline
from palmette.agents.conversation import ToolCall
from palmette.agents.errors import AgentError
from palmette.agents.proxy.actor import Proxy
from palmette.agents.proxy.records import CallEnded, CallWanted, Events, ProxySession, ToolGivenUp, ToolWanted
from palmette.agents.toolbox import Toolbox, ToolResult

_SECONDS = 60.0
RunTool = Callable[[ToolCall], Awaitable[ToolResult]]


class EventsLost(AgentError):
    """More happened in a session than is kept for who does not read."""


class ProxyLine:
    """Made by :meth:`open`."""

    def __init__(
        self, proxy: Ref[Proxy], session: ProxySession, run_tool: RunTool | None, may_go_on: asyncio.Event | None
    ) -> None:
        self.session = session
        self._proxy = proxy
        self._run_tool = run_tool
        self._may_go_on = may_go_on
        self._seen = 0
        self._moved = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        proxy: Ref[Proxy],
        name: str,
        *,
        owner: Ref[Actor] | None = None,
        toolbox: Toolbox | None = None,
        run_tool: RunTool | None = None,
        may_go_on: asyncio.Event | None = None,
    ) -> AsyncGenerator[Self]:
        """A session for the length of a block.

        Args:
            proxy: The proxy.
            name: For people.
            owner: An actor whose death closes the session.
            toolbox: The tools that the program may call.
            run_tool: What is done when it does; the toolbox's own ``run`` by default.
            may_go_on: Clear while no call may go to the model.
        """
        tools = toolbox.schemas if toolbox is not None else []
        with deadline(_SECONDS):
            session = await proxy.call(Proxy.open, name, owner=owner, tools=tools, gated=may_go_on is not None)
        if run_tool is None and toolbox is not None:
            run_tool = toolbox.run
        line = cls(proxy, session, run_tool, may_go_on)
        try:
            yield line
        finally:
            for task in line._running.values():
                task.cancel()
            if line._running:
                await asyncio.wait(line._running.values())
            if line._crash.done():
                line._crash.exception()  # looked at, if by nobody else
            proxy.cast(Proxy.close, session.id)

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a program that speaks OpenAI needs; ``port``: where it finds the proxy from where it runs."""
        base_url = self.session.base_url(port)
        return {"OPENAI_BASE_URL": base_url, "OPENAI_API_BASE": base_url, "OPENAI_API_KEY": self.session.token}

    async def set_tools(self, toolbox: Toolbox) -> None:
        """Offer what the toolbox holds now."""
        with deadline(_SECONDS):
            await self._proxy.call(Proxy.set_tools, self.session.id, toolbox.schemas)

    async def tools_taken(self) -> bool:
        """Whether the program has the present tools at work; waits for it, for half a minute at most."""
        with deadline(_SECONDS):
            return await self._proxy.call(Proxy.tools_taken, self.session.id)

    async def caught_up(self) -> None:
        """Wait until the reader of :meth:`calls` has been given all that has happened by now.

        Raises:
            ActorDied: the proxy died.
            DeadlineExceeded: nobody reads.
        """
        with deadline(_SECONDS):
            happened = await self._proxy.call(Proxy.happened, self.session.id)
        async with asyncio.timeout(_SECONDS):
            while self._seen < happened:
                await self._moved.wait()

    async def calls(self) -> AsyncIterator[CallEnded]:
        """The calls of the model as they end, until the session is closed. Tools run while somebody reads here.

        Raises:
            ActorDied: the proxy died.
            Exception: what a tool raised.
        """
        after = 0
        while True:
            reading = asyncio.ensure_future(self._read(after))
            try:
                await asyncio.wait([reading, self._crash], return_when=asyncio.FIRST_COMPLETED)
                if self._crash.done():
                    self._crash.result()
                events = reading.result()
            finally:
                reading.cancel()
            if events is None:
                return
            if events.first > after:
                raise EventsLost(
                    f"{events.first - after} events of {self.session.id} were dropped before they were read"
                )
            after = events.first + len(events.events)
            for number, event in enumerate(events.events, events.first + 1):
                match event:
                    case CallEnded():
                        yield event
                    case CallWanted(number=wish):
                        self._start(wish, self._let_go(wish))
                    case ToolWanted(number=wish, call=call):
                        self._start(wish, self._use(wish, call))
                    case ToolGivenUp(number=wish):
                        if wish in self._running:
                            self._running[wish].cancel()
                self._seen = number
                self._moved.set()
                self._moved = asyncio.Event()
            if events.is_over:
                return

    async def _read(self, after: int) -> Events | None:
        try:
            with deadline(_SECONDS):
                return await self._proxy.call(Proxy.events, self.session.id, after)
        except Refused:
            return None

    def _start(self, number: int, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._running[number] = task
        task.add_done_callback(lambda ended: self._ended(number, ended))

    def _ended(self, number: int, task: asyncio.Future[None]) -> None:
        del self._running[number]
        if not task.cancelled() and (error := task.exception()) is not None and not self._crash.done():
            self._crash.set_exception(error)

    async def _let_go(self, number: int) -> None:
        if self._may_go_on is not None:
            await self._may_go_on.wait()
        self._proxy.cast(Proxy.go_on, self.session.id, number)

    async def _use(self, number: int, call: ToolCall) -> None:
        if self._run_tool is None:
            result = ToolResult("there are no tools here", failed=True)
        else:
            result = await self._run_tool(call)
        self._proxy.cast(Proxy.answer_tool, self.session.id, number, str(result), failed=result.failed)
