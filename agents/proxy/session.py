"""One program's session in the proxy: its token, its tools, and what happened, for whoever reads it.

Events are kept until they were read, up to a bound, and then dropped from the oldest on, which their numbers tell.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Sequence

from palmette.actors import Actor, Ref
from palmette.agents.conversation import Completion, Message, ToolCall, ToolSchema
from palmette.agents.proxy.records import Api, CallEnded, CallWanted, Event, Events, ToolGivenUp, ToolWanted
from palmette.agents.transcript import Turn

KEPT = 10000
"""Events that nobody has read."""


class Session:
    """See the module's text."""

    def __init__(self, name: str, owner: Ref[Actor] | None, tools: Sequence[ToolSchema], *, gated: bool) -> None:
        self.id = f"{name}-{secrets.token_hex(4)}"
        self.token = secrets.token_urlsafe(32)
        self.owner = owner
        self.tools = list(tools)
        self.tools_version = 0
        self._tools_known = -1
        self.is_over = False
        self.running: set[asyncio.Task[object]] = set()
        """The requests that are being answered."""
        self._gated = gated
        self._events: deque[Event] = deque()
        self._first = 0
        self._changed = asyncio.Event()
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._heard: list[int] = []
        self._gates: dict[int, asyncio.Future[None]] = {}
        self._answers: dict[int, asyncio.Future[tuple[str, bool]]] = {}

    def knows(self, token: str) -> bool:
        """Whether ``token`` is this session's, and the session lives."""
        return not self.is_over and secrets.compare_digest(self.token.encode(), token.encode())

    def close(self) -> None:
        """Refuse the token from now on, and end what is under way."""
        self.is_over = True
        for task in self.running:
            task.cancel()
        self._tell()

    # --- what happens ------------------------------------------------------------------------------------------------

    async def may_call(self) -> None:
        """Wait until a call may go to the model."""
        if self._gated:
            number = next(self._numbers)
            self._gates[number] = gate = asyncio.get_running_loop().create_future()
            self._add(CallWanted(number=number))
            try:
                await gate
            finally:
                del self._gates[number]

    async def use_tool(self, call: ToolCall) -> tuple[str, bool]:
        """What a tool of ours says, and whether it is bad news."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        self._add(ToolWanted(number=number, call=call))
        try:
            return await answer
        except asyncio.CancelledError:
            self._add(ToolGivenUp(number=number))
            raise
        finally:
            del self._answers[number]

    def called(
        self, api: Api, status: int, conversation: Sequence[Message], completion: Completion | None, *,
        seconds: float, error: str = "", retry_after: float | None = None,
    ) -> None:  # fmt: skip
        """A call of the model has ended."""
        if completion is None:
            self._add(CallEnded(api=api, status=status, error=error, retry_after=retry_after))
            return
        prints = [_print(message) for message in conversation]
        known = len(self._heard)
        continues = bool(known) and prints[:known] == self._heard
        self._heard = [*prints, _print(completion.message)]
        turn = Turn(
            index=next(self._turns),
            heard=tuple(conversation[known:] if continues else conversation),
            said=completion.message,
            usage=completion.usage,
            tokens=completion.tokens,
            seconds=seconds,
        )
        self._add(CallEnded(api=api, status=status, turn=turn, is_fresh=not continues, error=error))

    # --- the other side ----------------------------------------------------------------------------------------------

    async def events(self, after: int, patience: float) -> Events:
        """The events from number ``after`` on, as soon as there is one; none after ``patience`` seconds."""
        while self._events and self._first < after:
            self._events.popleft()
            self._first += 1
        if not self._events and not self.is_over:
            try:
                async with asyncio.timeout(patience):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return Events(first=self._first, events=tuple(self._events), is_over=self.is_over)

    @property
    def happened(self) -> int:
        """How many events there have been."""
        return self._first + len(self._events)

    def go_on(self, number: int) -> None:
        """Let a call through."""
        gate = self._gates.get(number)
        if gate is not None and not gate.done():
            gate.set_result(None)

    def answer(self, number: int, text: str, *, failed: bool) -> None:
        """Answer a :class:`ToolWanted`."""
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result((text, failed))

    def set_tools(self, tools: Sequence[ToolSchema]) -> None:
        """These instead of the former."""
        self.tools = list(tools)
        self.tools_version += 1
        self._tell()

    async def newer_tools(self, than: int, patience: float) -> None:
        """Wait for tools of a greater version, for ``patience`` seconds at most. Who asks has those of version ``than``
        at work."""
        self._tools_known = max(self._tools_known, than)
        self._tell()
        await self._until(lambda: self.tools_version > than, patience)

    async def tools_taken(self, patience: float) -> bool:
        """Whether the program has the present tools at work, within ``patience`` seconds."""
        return await self._until(lambda: self._tools_known >= self.tools_version, patience)

    async def _until(self, holds: Callable[[], bool], patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                while not (holds() or self.is_over):
                    await self._changed.wait()
        except TimeoutError:
            pass
        return holds()

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > KEPT:
            self._events.popleft()
            self._first += 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _print(message: Message) -> int:
    # Programs send the model's own words back in forms of their own: null for "", arguments written anew.
    return hash("assistant" if message.role == "assistant" else message)
