"""A monitor: an agent that is given another program's endpoints as tools, and its events as messages.

    python examples/programs/monitor.py

The monitor's model sees what the service tells, and decides by itself to slow it down: ``attach`` made the endpoints of
the service its tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import Event, agent, emit, expose, program, spawn, wait


@program
async def service() -> object:
    rate = 8
    limited = asyncio.Event()

    @expose
    async def set_rate(per_second: int) -> str:
        """Set how many requests are served per second."""
        nonlocal rate
        rate = per_second
        limited.set()
        return f"the rate is {rate} per second"

    @expose
    async def shut_down(reason: str) -> str:
        """End the service at once."""
        raise RuntimeError(reason)

    emit("overloaded", {"rate": rate, "errors": 3})
    await limited.wait()
    emit("relaxed", {"rate": rate})
    return await wait()


@program(timeout=120)
async def watch(model: str) -> str:
    handle = spawn(service)
    monitor = await agent("monitor", model=model, system_prompt="Keep the service healthy.")
    await handle.attach(monitor, only=["set_rate"], prefix="service_")
    async for event in handle.events:
        if isinstance(event, Event):
            print(f"{event.type}: {event.data}")
            if event.type == "relaxed":
                break
            print(await monitor.ask(f"The service says {event.type}: {event.data}"))
    return ", ".join(schema.name for schema in monitor.toolbox.schemas)


def rule(messages: Sequence[Message]) -> str | Call:
    last = messages[-1]
    if last["role"] == "user" and "overloaded" in text_of(last):
        return Call("service_set_rate", {"per_second": 2})
    return f"noted: {text_of(last)}"


async def main() -> None:
    async with LocalModel(rule) as model:
        print(f"the monitor's tools: {await watch.options(**chosen())(model.name)}")


if __name__ == "__main__":
    asyncio.run(main())
