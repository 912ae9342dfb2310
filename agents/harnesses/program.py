"""What all harnesses have in common that are programs on a machine: a line to the proxy, and events in order.

What such a program does is seen from two sides: the proxy sees its calls of the model, and the harness its output. The
two are brought into one order by asking the proxy how much has happened whenever the program says something that comes
after a call (:meth:`ProgramHarness.caught_up`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Self

from palmette.actors import Ref
from palmette.agents.boundary import refusal
from palmette.agents.conversation import Message, ToolCall
from palmette.agents.errors import BudgetSpent, ConfigurationError, ModelError, ModelUnavailable
from palmette.agents.harness import HarnessEvent, HarnessSetup, Turned
from palmette.agents.proxy import CallEnded, Proxy, ProxyLine
from palmette.agents.proxy.tunnel import reachable
from palmette.agents.toolbox import ToolResult
from palmette.agents.transcript import Turn
from palmette.machines import ExecResult, Machine, Process

LIFE = 86400.0
"""Seconds after which a machine kills whatever still runs, should everything else have failed."""
_SAID = 2000
"""Characters of a program's last words that go into a message."""


class ProgramHarness:
    """Base of the harnesses in this folder; see :class:`~palmette.agents.harness.Harness` for what callers see."""

    def __init__(self, setup: HarnessSetup, proxy: Ref[Proxy]) -> None:
        if setup.machine is None:
            raise ConfigurationError(f"agent {setup.name!r} needs a machine: its harness is a program")
        self.machine: Machine = setup.machine
        self.setup = setup
        self.line: ProxyLine
        self.port = 0
        """Of the proxy, as the program sees it."""
        self._proxy = proxy
        self._stack = contextlib.AsyncExitStack()
        self._events: asyncio.Queue[HarnessEvent | Exception | None] = asyncio.Queue()
        self._calls: deque[CallEnded] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._turns = len(setup.turns)
        self._unheard: deque[str] = deque()

    async def __aenter__(self) -> Self:
        setup = self.setup
        try:
            self.line = await self._stack.enter_async_context(
                ProxyLine.open(
                    self._proxy,
                    setup.session,
                    toolbox=setup.toolbox,
                    run_tool=self.run_tool,
                    may_go_on=setup.may_go_on,
                )
            )
            self.port = await self._stack.enter_async_context(
                reachable(self.machine, self.line.session.port, timeout=LIFE)
            )
            self.watch(self._read_calls(), "calls")
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        try:
            await self.stop()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._stack.aclose()

    async def events(self) -> AsyncIterator[HarnessEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def tools_changed(self) -> None:
        await self.line.set_tools(self.setup.toolbox)

    # --- for the harnesses -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the program, if it is one that stays."""

    async def stop(self) -> None:
        """Leave nothing of it running. Also called after a start that failed, or was never made."""

    async def run_tool(self, call: ToolCall) -> ToolResult:
        """Run a tool of ours that the program calls."""
        return await self.setup.toolbox.run(call)

    def tell(self, event: HarnessEvent) -> None:
        """To whoever reads :meth:`events`."""
        self._events.put_nowait(event)

    def watch(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run a coroutine until the harness ends; what it raises breaks the harness."""
        task = asyncio.create_task(work, name=f"{self.setup.session} {name}")
        task.add_done_callback(self._watched)
        self._tasks.append(task)

    def called(self, call: CallEnded) -> None:
        """A call has ended; :meth:`caught_up` gives it to who asks."""
        self._calls.append(call)

    def is_sent(self, text: str) -> None:
        """The program has been given a message."""
        self._unheard.append(text)

    async def caught_up(self) -> list[CallEnded]:
        """The calls that ended before now and were not asked for yet."""
        await self.line.caught_up()
        calls = list(self._calls)
        self._calls.clear()
        return calls

    def turn(self, call: CallEnded) -> None:
        """Tell of a call that brought a completion."""
        if call.turn is not None:
            self.tell(Turned(turn=self._renumbered(call.turn, is_fresh=call.is_fresh)))
            self._turns += 1

    async def _read_calls(self) -> None:
        async for call in self.line.calls():
            self.called(call)

    def _watched(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._events.put_nowait(error)

    def _renumbered(self, turn: Turn, *, is_fresh: bool) -> Turn:
        heard = turn.heard
        if is_fresh and self._turns:  # the journal has all but the end of it
            last = max((at for at, message in enumerate(heard) if message.role == "assistant"), default=-1)
            heard = heard[last + 1 :]
        return Turn(
            index=self._turns,
            heard=tuple(self._as_sent(message) for message in heard),
            said=turn.said,
            usage=turn.usage,
            tokens=turn.tokens,
            seconds=turn.seconds,
        )

    def _as_sent(self, message: Message) -> Message:
        """A ``user`` message is one that was sent to the agent; what the program makes up itself is not."""
        if message.role == "user":
            if self._unheard and self._unheard[0].strip() == message.content.strip():
                return Message(role="user", content=self._unheard.popleft())
            return Message(role="system", content=message.content)
        return message


def error_of(call: CallEnded, model: str) -> ModelError:
    """A call that failed, as the error that it was."""
    if call.status == 402:
        return BudgetSpent(call.error)
    if call.status in {200, 499}:
        return ModelUnavailable(call.error or "the model's answer broke off")
    return refusal(
        call.status, call.error, where="the model behind the proxy", model=model,
        key_env="of the proxy's upstream", retry_after=call.retry_after,
    )  # fmt: skip


async def end_of(process: Process, said: bytes) -> str:
    """How a process ended, in words."""
    result: ExecResult = await process.wait()
    how = f"with exit code {result.exit_code}" if result.signal is None else f"by signal {result.signal}"
    why = f" ({result.evidence})" if result.evidence is not None else ""
    text = said.decode("utf-8", "replace").strip()[-_SAID:]
    return f"ended {how}{why}" + (f": {text}" if text else " without a word")
