"""The ``react`` harness for living agents: a conversation that goes on, in this process, with tools in parallel.

>>> harness_factory = react_harness(OpenAIClient("qwen3"))          # doctest: +SKIP
>>> solver = await agent("solver", harness=harness_factory)         # doctest: +SKIP

The loop is that of :func:`~palmette.agents.react.react`, without an end: a reply without tool calls settles the run,
and the next message begins another. What is said meanwhile is heard before the next reply. It is driven by whoever
reads its events, so that nothing is acted on before it was told: a reply is recorded before its tools run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from palmette.actors import Ref
from palmette.agents.conversation import Completion, Message, ModelClient, Session, ToolCall
from palmette.agents.errors import ConfigurationError, ContextFull
from palmette.agents.harness import HarnessEvent, HarnessFactory, HarnessSetup, Settled, ToolBegan, ToolEnded, Turned
from palmette.agents.limiter import LimitedClient, Limiter
from palmette.agents.names import parse_model
from palmette.agents.openai_client import OpenAIClient
from palmette.agents.react import ReactLimits
from palmette.agents.transcript import Turn

T = TypeVar("T")

UNKNOWN: Final = "the agent was restarted while this ran; what it did is not known, so look before you repeat it"
INTERRUPTED: Final = "interrupted before it ended"


def react_harness(
    client: ModelClient | None = None, *, limits: ReactLimits | None = None, limiter: Ref[Limiter] | None = None
) -> HarnessFactory:
    """A factory of :class:`ReactHarness`.

    Args:
        client: Its models. ``None``: a client of its own for each agent, made of the agent's ``model``, which is then
            written as on the command line (``openai/NAME``).
        limits: Of each run, from a message to the answer; the defaults of :class:`ReactLimits` where ``None``. The
            deadlines of tools are the agent's.
        limiter: Asked before each request of a client of its own.
    """
    return lambda setup: ReactHarness(setup, client, limits or ReactLimits(), limiter)


class ReactHarness:
    """See the module's text, and :class:`~palmette.agents.harness.Harness`."""

    def __init__(
        self,
        setup: HarnessSetup,
        client: ModelClient | None,
        limits: ReactLimits,
        limiter: Ref[Limiter] | None = None,
    ) -> None:
        self._setup = setup
        self._limits = limits
        if client is None and not setup.model:
            raise ConfigurationError(
                f"agent {setup.name!r} has no model; pass model= to agent(), or a harness with a client"
            )
        self._client = client
        self._limiter = limiter
        self._own: OpenAIClient | None = None
        self._conversation: list[Message] = []
        self._inbox: list[str] = []
        self._arrived = asyncio.Event()
        self._working: set[asyncio.Task[object]] = set()
        self._is_interrupted = False
        self._turns = len(setup.turns)

    async def __aenter__(self) -> Self:
        client = self._client
        if client is None:
            # In a thread: the SDK takes a second or two to be imported, and more while others do likewise.
            client = self._own = await asyncio.to_thread(_client_of, self._setup.model)
            if self._limiter is not None:
                client = LimitedClient(client, self._limiter)
        self._session: Session = client.session(self._setup.session, seed=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop_working()
        if self._own is not None:
            await self._own.close()

    async def send(self, text: str) -> None:
        self._inbox.append(text)
        self._arrived.set()

    async def interrupt(self) -> None:
        if self._arrived.is_set():
            self._is_interrupted = True
            for task in self._working:
                task.cancel()

    async def tools_changed(self) -> None:
        """The schemas are read anew for each reply."""

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[HarnessEvent]:
        heard = self._resumed()
        if heard and self._setup.turns:
            self._arrived.set()  # it was cut short between a reply and the next: the run goes on
        while True:
            await self._arrived.wait()
            run = _Run(self._limits)
            while True:
                heard += [Message(role="user", content=text) for text in self._inbox]
                self._inbox.clear()
                completion = await self._reply(heard, run)
                if completion is None:
                    settled = Settled(stop="interrupted") if self._is_interrupted else run.truncated()
                    break
                turn = self._turn(heard, completion, run)
                yield Turned(turn=turn)
                heard = []
                calls = completion.message.tool_calls
                if not calls and not self._inbox:
                    settled = Settled(answer=completion.message.content)
                    break
                results: dict[str, str] = {}
                for call in calls:
                    yield ToolBegan(call=call)
                async for ended in self._results(calls):
                    results[ended.call.id] = ended.text
                    yield ended
                heard = [Message(role="tool", content=results[call.id], tool_call_id=call.id) for call in calls]
                if self._is_interrupted:
                    settled = Settled(stop="interrupted")
                    break
            self._is_interrupted = False
            if not self._inbox:
                self._arrived.clear()
            yield settled

    def _resumed(self) -> list[Message]:
        """Take up the conversation so far; what the model has yet to hear of it."""
        setup = self._setup
        if not setup.turns:
            return [] if setup.system_prompt is None else [Message(role="system", content=setup.system_prompt)]
        for turn in setup.turns:
            self._conversation += [*turn.heard, turn.said]
        known = {result.call.id: result.text for result in setup.results}
        return [
            Message(role="tool", content=known.get(call.id, UNKNOWN), tool_call_id=call.id)
            for call in setup.turns[-1].said.tool_calls
        ]

    async def _reply(self, heard: Sequence[Message], run: _Run) -> Completion | None:
        """The model's next reply; ``None`` where the run is interrupted or a limit of it was hit."""
        await self._interruptible(self._setup.may_go_on.wait())
        if self._is_interrupted or run.is_spent():
            return None
        asked = self._session.complete(
            (*self._conversation, *heard),
            tools=self._setup.toolbox.schemas,
            max_tokens=run.room(),
            timeout=self._limits.reply_seconds,
        )
        run.began = asyncio.get_running_loop().time()
        try:
            return await self._interruptible(asked)
        except ContextFull as error:
            run.why = f"context window: {error}"
            return None

    def _turn(self, heard: Sequence[Message], completion: Completion, run: _Run) -> Turn:
        turn = Turn(
            index=self._turns,
            heard=tuple(heard),
            said=completion.message,
            usage=completion.usage,
            tokens=completion.tokens,
            seconds=asyncio.get_running_loop().time() - run.began,
        )
        self._turns += 1
        run.turns += 1
        run.output_tokens += completion.usage.output_tokens
        self._conversation += [*heard, completion.message]
        return turn

    async def _results(self, calls: Sequence[ToolCall]) -> AsyncIterator[ToolEnded]:
        """Run ``calls`` side by side; each result as it comes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        running: dict[asyncio.Task[object], ToolCall] = {}
        for call in calls:
            task: asyncio.Task[object] = loop.create_task(self._setup.toolbox.run(call), name=f"tool {call.name}")
            running[task] = call
            self._working.add(task)
        if self._is_interrupted:
            await self._stop_working()
        while running:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in running if each in ended]:
                call = running.pop(task)
                self._working.discard(task)
                seconds = loop.time() - began
                if task.cancelled():
                    yield ToolEnded(call=call, text=INTERRUPTED, failed=True, seconds=seconds)
                else:
                    result = task.result()
                    failed = bool(getattr(result, "failed", False))
                    yield ToolEnded(call=call, text=str(result), failed=failed, seconds=seconds)

    async def _interruptible(self, work: Coroutine[object, object, T]) -> T | None:
        """``work``'s result; ``None`` where it was interrupted."""
        task = asyncio.ensure_future(work)
        self._working.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._working.discard(task)
            if not task.done():  # the harness is being stopped
                task.cancel()
                await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _stop_working(self) -> None:
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)


def _client_of(model: str) -> OpenAIClient:
    named = parse_model(model)
    client = OpenAIClient(named.name, base_url=named.base_url)
    _ = client.sdk.chat.completions.with_raw_response  # loads what the first request would
    return client


class _Run:
    """From a message to the answer: what it has used up."""

    def __init__(self, limits: ReactLimits) -> None:
        self._limits = limits
        self._until = asyncio.get_running_loop().time() + limits.seconds
        self.turns = 0
        self.output_tokens = 0
        self.began = 0.0
        """When the present reply was asked for."""
        self.why = ""
        """The limit that was hit."""

    def is_spent(self) -> bool:
        """Whether a limit of the run was hit."""
        limits = self._limits
        if self.turns >= limits.max_turns:
            self.why = f"max_turns: {limits.max_turns}"
        elif asyncio.get_running_loop().time() >= self._until:
            self.why = f"seconds: {limits.seconds:g}"
        elif limits.max_output_tokens is not None and self.output_tokens >= limits.max_output_tokens:
            self.why = f"max_output_tokens: {limits.max_output_tokens}"
        return bool(self.why)

    def room(self) -> int | None:
        """Tokens that the next reply may have."""
        limits = self._limits
        if limits.max_output_tokens is None:
            return limits.reply_tokens
        left = limits.max_output_tokens - self.output_tokens
        return left if limits.reply_tokens is None else min(left, limits.reply_tokens)

    def truncated(self) -> Settled:
        return Settled(stop="truncated", reason=self.why)
