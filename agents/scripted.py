"""A model whose answers are known beforehand: for tests, for recorded runs, for reference solutions.

Every session of a task reads the same script from its beginning, so a restarted agent hears the same replies again.

>>> client = ScriptedClient(lambda task_id: ["read 3", f"done {task_id}"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palmette.agents.conversation import Completion, Message, ToolSchema

Reply = str | Completion | Exception
"""A text, a whole completion (for tool calls, token ids, usage), or an error to raise in its place."""


class ScriptedClient:
    """Sessions answer with ``replies_for(task_id)``, in order; after the last reply, with empty text.

    What ``replies_for`` raises, :meth:`session` raises: a missing recording is no empty answer.
    """

    def __init__(self, replies_for: Callable[[str], Sequence[Reply]], *, name: str = "scripted") -> None:
        self._replies_for = replies_for
        self._name = name

    def __repr__(self) -> str:
        return f"ScriptedClient(name={self._name!r})"

    def session(self, task_id: str, *, seed: int) -> ScriptedSession:
        """A session at the script's beginning. ``seed`` changes nothing."""
        return ScriptedSession(self._replies_for(task_id), self._name)

    async def close(self) -> None:
        """There is nothing to give back."""


class ScriptedSession:
    """One reading of a script."""

    def __init__(self, replies: Sequence[Reply], name: str = "scripted") -> None:
        self._replies = iter(tuple(replies))
        self._name = name

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        """The script's next reply, at once; neither limit can be reached."""
        reply = next(self._replies, "")
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        return Completion(message=Message(role="assistant", content=reply), model=self._name)


def silent() -> ScriptedClient:
    """A model that answers nothing, ever: the floor that every benchmark must score 0 against."""
    return ScriptedClient(lambda task_id: (), name="silent")
