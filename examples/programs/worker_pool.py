"""A pool of workers as a service: a program that exposes endpoints, and is called from its parent and from outside.

    python examples/programs/worker_pool.py

While it runs, ``palmette ls`` lists it, and ``palmette call worker_pool add_task text=...`` gives it more to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import Event, agent, emit, expose, program, spawn, wait


@program
async def pool(workers: int, model: str) -> object:
    tasks: asyncio.Queue[str] = asyncio.Queue()
    finished: dict[str, str] = {}

    @expose
    async def add_task(text: str) -> int:
        """Queue a task; how many wait."""
        tasks.put_nowait(text)
        return tasks.qsize()

    @expose
    async def status() -> dict[str, int]:
        """How things stand."""
        return {"waiting": tasks.qsize(), "finished": len(finished)}

    async def work(name: str) -> None:
        worker = await agent(name, model=model, system_prompt="Answer in capitals.")
        while True:
            task = await tasks.get()
            finished[task] = await worker.ask(task)
            emit("finished", [task, finished[task]])

    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(f"worker-{number}"))
        group.create_task(wait())
    return finished


@program(name="worker_pool")
async def run(tasks: list[str], model: str) -> None:
    handle = spawn(pool, 3, model)

    @expose
    async def add_task(text: str) -> object:
        """Queue a task; how many wait."""
        return await handle.call("add_task", text=text)

    for task in tasks:
        await add_task(task)
    missing = set(tasks)
    async for event in handle.events:
        match event:
            case Event(type="finished", data=[str(task), str(answer)]):
                print(f"{task}: {answer}")
                missing.discard(task)
            case _:
                pass
        if not missing:
            break
    print(await handle.call("status"))


def rule(messages: Sequence[Message]) -> str | Call:
    return text_of(messages[-1]).upper()


async def main() -> None:
    async with LocalModel(rule) as model:
        await run.options(**chosen())(["apple", "pear", "plum", "quince", "fig"], model.name)


if __name__ == "__main__":
    asyncio.run(main())
