"""The ``react`` harness: the model replies, its tools run, it hears what they said, until it answers.

The loop is the one of "ReAct: Synergizing Reasoning and Acting in Language Models" (Yao et al., 2022), with the
model's own tool calls in place of parsed prose, or, for small models, with one-line commands
(:mod:`palmette.agents.commands`). It is a plain coroutine that owns no process, connection or file: an actor wraps it.

>>> import asyncio
>>> from palmette.agents.scripted import ScriptedSession
>>> asyncio.run(react("What is 6 times 7?", ScriptedSession(["42"]))).answer
'42'

A reply without tool calls is the answer, so a benchmark without tools is a conversation of one turn.

Two kinds of limit are kept apart, because only one of them may be judged. ``turns`` is a rule of the *task*: an agent
that uses them up is judged on what it did. :class:`ReactLimits` are the *harness's*: an episode that they cut short
is truncated and has no reward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from palmette.agents.commands import Answer, Unreadable, line_parameter, parse_command
from palmette.agents.conversation import Completion, Message, Session, ToolCall
from palmette.agents.errors import BadArguments, ContextFull, ToolFailed
from palmette.agents.tools import Tool
from palmette.agents.transcript import Transcript, Turn

T = TypeVar("T")
Dialect = Literal["native", "line"]
OnTurn = Callable[[Turn], Awaitable[None] | None]

OOPS = "oops 0"
"""What an unreadable command gets in the line dialect: six characters, as every line of the trail suite."""


class ReactLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the harness; where one is hit, the episode is truncated."""

    max_turns: int = 100
    """Replies of the model."""
    max_output_tokens: int | None = None
    """Tokens of all replies together, as the endpoint counts them."""
    seconds: float = 1800.0
    """Wall clock, for models and tools together."""
    reply_tokens: int | None = None
    """Tokens of one reply. In the native dialect a reply that is cut here and calls no tool ends the episode; in the
    line dialect it is read as it stands, so that a model can learn to be brief."""
    reply_seconds: float = 300.0
    """Deadline of one reply. A model that misses it is unavailable, which is no truncation."""
    tool_seconds: float = 120.0
    """Deadline of one tool call. The model is told, and goes on."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: float | None = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")


async def react(
    prompt: str,
    session: Session,
    tools: Sequence[Tool] = (),
    *,
    dialect: Dialect = "native",
    turns: int | None = None,
    limits: ReactLimits | None = None,
    on_turn: OnTurn | None = None,
    system_prompt: str | None = None,
    oops: str = OOPS,
) -> Transcript:
    """Let the model behind ``session`` work on ``prompt``.

    Args:
        prompt: The task.
        session: A fresh one; it hears the whole conversation.
        tools: What the model may call. Calls of one reply run at the same time; results keep the calls' order.
        dialect: ``native`` tool calls, or ``line``: one command per reply, ``done X`` for the answer.
        turns: How many replies the task's own rules allow; ``None`` for any number.
        limits: The harness's own; the defaults of :class:`ReactLimits` where ``None``.
        on_turn: Told of each reply before its tools run, in order; the loop waits for it (a journal, usually).
        system_prompt: Comes before ``prompt``.
        oops: What the line dialect answers to a command that it cannot read.

    Raises:
        ModelUnavailable: no reply came (see :class:`~palmette.agents.conversation.Session`).
        ModelRefused: the endpoint says no.
        ValueError: two tools share a name, or one does not fit the dialect.
        Exception: whatever a tool raised, except ``ToolFailed``; the other calls of that reply are cancelled.
    """
    if turns is not None and turns < 1:
        raise ValueError(f"a task allows at least one turn, got turns={turns}")
    return await _Episode(session, tools, dialect, turns, limits or ReactLimits(), on_turn, oops).run(
        [Message(role="system", content=system_prompt)] if system_prompt is not None else [],
        Message(role="user", content=prompt),
    )


class _Cut(Exception):
    """A limit of the harness was hit."""


class _Episode:
    def __init__(
        self,
        session: Session,
        tools: Sequence[Tool],
        dialect: Dialect,
        allowance: int | None,
        limits: ReactLimits,
        on_turn: OnTurn | None,
        oops: str,
    ) -> None:
        self._tools = {each.schema.name: each for each in tools}
        if len(self._tools) < len(tools):
            names = [each.schema.name for each in tools]
            raise ValueError(f"two tools share a name: {', '.join(sorted(names))}")
        if dialect == "line":
            for each in tools:
                line_parameter(each.schema)
        self._session = session
        self._dialect: Dialect = dialect
        self._allowance = allowance
        self._limits = limits
        self._on_turn = on_turn
        self._oops = oops
        self._conversation: list[Message] = []
        self._turns: list[Turn] = []
        self._output_tokens = 0
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + limits.seconds

    async def run(self, opening: list[Message], prompt: Message) -> Transcript:
        heard = [*opening, prompt]
        try:
            while True:
                if self._allowance is not None and len(self._turns) >= self._allowance:
                    return Transcript(stop="turns", reason=f"{self._allowance} turns", turns=tuple(self._turns))
                completion = await self._reply(heard)
                if self._dialect == "line":
                    answer, heard = await self._obey(completion.message.content)
                else:
                    answer, heard = await self._act(completion)
                if answer is not None:
                    return Transcript(answer=answer, turns=tuple(self._turns))
        except _Cut as cut:
            return Transcript(stop="truncated", reason=str(cut), turns=tuple(self._turns))

    async def _reply(self, heard: list[Message]) -> Completion:
        """One reply of the model, counted and told of."""
        limits = self._limits
        if len(self._turns) >= limits.max_turns:
            raise _Cut(f"max_turns: {limits.max_turns}")
        if self._loop.time() >= self._deadline:  # neither a scripted model nor a quick tool ever suspends
            raise self._out_of_time()
        room = limits.reply_tokens
        if limits.max_output_tokens is not None:
            left = limits.max_output_tokens - self._output_tokens
            if left <= 0:
                raise _Cut(f"max_output_tokens: {limits.max_output_tokens}")
            room = left if room is None else min(room, left)
        self._conversation += heard
        began = self._loop.time()
        try:
            completion = await self._before_deadline(
                self._session.complete(
                    tuple(self._conversation),
                    tools=[each.schema for each in self._tools.values()] if self._dialect == "native" else (),
                    max_tokens=room,
                    timeout=limits.reply_seconds,
                )
            )
        except ContextFull as error:
            raise _Cut(f"context window: {error}") from None
        self._conversation.append(completion.message)
        self._output_tokens += completion.usage.output_tokens
        turn = Turn(
            index=len(self._turns),
            heard=tuple(heard),
            said=completion.message,
            usage=completion.usage,
            tokens=completion.tokens,
            seconds=self._loop.time() - began,
        )
        self._turns.append(turn)
        if self._on_turn is not None:
            waiting = self._on_turn(turn)
            if waiting is not None:
                await waiting
        return completion

    async def _act(self, completion: Completion) -> tuple[str | None, list[Message]]:
        """The native dialect."""
        calls = completion.message.tool_calls
        if calls:
            results = await self._before_deadline(self._results(calls))
            return None, [
                Message(role="tool", content=result, tool_call_id=call.id)
                for call, result in zip(calls, results, strict=True)
            ]
        if completion.stop == "length":
            raise _Cut(f"reply_tokens: the reply was cut after {completion.usage.output_tokens} tokens")
        return completion.message.content, []

    async def _obey(self, text: str) -> tuple[str | None, list[Message]]:
        """The line dialect."""
        command = parse_command(text, tuple(self._tools.values()))
        if isinstance(command, Answer):
            return command.text, []
        if isinstance(command, Unreadable):
            return None, [Message(role="tool", content=self._oops)]
        (result,) = await self._before_deadline(self._results([command]))
        return None, [Message(role="tool", content=result)]

    async def _results(self, calls: Sequence[ToolCall]) -> list[str]:
        """What the tools say, in the order of ``calls``; they run at the same time."""
        crash: BaseException | None = None
        running: list[asyncio.Task[str]] = []
        try:
            async with asyncio.TaskGroup() as group:
                running += [group.create_task(self._result(call), name=f"tool {call.name}") for call in calls]
        except BaseExceptionGroup as crashes:
            # The supervisor goes by the class of what crashed, and a group has none: the first one speaks for all.
            crash, *others = crashes.exceptions
            for other in others:
                crash.add_note(f"another tool crashed in the same turn: {type(other).__name__}: {other}")
        if crash is not None:
            raise crash  # out here, where the group does not take the place of the crash's own context
        for call, task in zip(calls, running, strict=True):
            if task.cancelled():  # by itself: were it us, the group would have raised
                raise RuntimeError(f"tool {call.name!r} cancelled itself")
        return [task.result() for task in running]

    async def _result(self, call: ToolCall) -> str:
        wanted = self._tools.get(call.name)
        if wanted is None:
            names = ", ".join(self._tools) or "none"
            return f"there is no tool {call.name!r}; the tools are: {names}"
        seconds = self._limits.tool_seconds
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                return await wanted.run(call.arguments)
        except BadArguments as error:
            return str(error) if self._dialect == "native" else self._oops
        except ToolFailed as error:
            return str(error)
        except TimeoutError:
            if not clock.expired():
                raise
            return f"{call.name} did not finish within {seconds:g} s and was stopped"

    async def _before_deadline(self, work: Awaitable[T]) -> T:
        """Wait for ``work``, unless the episode's time is up first."""
        clock = asyncio.timeout_at(self._deadline)
        try:
            async with clock:
                return await work
        except TimeoutError:
            if not clock.expired():
                raise
            raise self._out_of_time() from None

    def _out_of_time(self) -> _Cut:
        return _Cut(f"seconds: {self._limits.seconds:g}")
