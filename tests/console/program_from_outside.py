"""The agent program that the tests of ``palmette ls | status | call | send | logs | stop`` look into."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from palmette.agents import Completion, Message, ScriptedClient, ToolSchema
from palmette.agents.programs import agent, connect, emit, expose, program, spawn, wait


class Echo(ScriptedClient):
    """Answers with what it was told last."""

    def __init__(self) -> None:
        super().__init__(lambda task: ())

    def session(self, task_id: str, *, seed: int) -> Echo:  # type: ignore[override]
        return self

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        text = f"heard: {conversation[-1].content}"
        emit("answered", text)
        return Completion(message=Message(role="assistant", content=text))


@program
async def below() -> object:
    @expose
    async def double(x: int) -> int:
        """Twice as much."""
        return 2 * x

    await agent("helper", model=Echo(), image="local")
    return await wait()


@program
async def office() -> object:
    boss, clerk = await agent("boss", model=Echo()), await agent("clerk", model=Echo())
    connect(boss, clerk, direction="forward")
    spawn(below)

    @expose
    async def add_task(spec: str, priority: int = 0) -> dict[str, object]:
        """Queue a task."""
        emit("task", spec)
        return {"spec": spec, "priority": priority}

    @expose
    async def greet(name: str) -> str:
        return f"hello {name}"

    @expose
    async def fall_over() -> None:
        raise KeyError("kaboom")

    @expose
    async def sleep() -> None:
        await asyncio.sleep(600)

    emit("open")
    return await wait()


if __name__ == "__main__":
    asyncio.run(office())
