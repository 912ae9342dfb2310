"""A machine backend of one's own, in forty lines: agents' commands run with the lowest priority of this host.

    python examples/programs/own_backend.py

A backend makes a place, opens byte streams to programs in it, says how it is, and takes it down. Commands, deadlines,
files and kills stand above, once for all backends; ``palmette.machines.conformance`` checks all of it for yours.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from local_model import Call, LocalModel, Message, chosen, text_of

from palmette.agents.programs import agent, program
from palmette.machines import Backend, Channel, Evidence, Place, register_backend


class NiceChannel:
    """A program of this host, by its pipes."""

    complaint = ""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout

    async def read(self) -> bytes:
        return await self._out.read(1 << 16)

    async def write(self, data: bytes) -> None:
        self._in.write(data)
        await self._in.drain()

    async def close(self) -> None:
        self._in.close()


class Nice(Backend):
    """Processes of this host that give way to all others, in a directory of their own."""

    name: ClassVar[str] = "nice"
    isolation: ClassVar[Literal["namespaces", "container", "host", "vm"]] = "host"

    def __init__(self, niceness: str, id: str) -> None:
        self._niceness = niceness or "19"
        self._id = id
        self._root: Path | None = None
        self._channels: list[NiceChannel] = []

    async def start(self) -> Place:
        self._root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"{self._id}."))
        return Place(workdir=f"{self._root}/work", root=str(self._root), temporary=True)

    async def open_channel(self, argv: Sequence[str]) -> Channel:
        words = [sys.executable if word == "python3" else word for word in argv]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "nice", "-n", self._niceness, *words, stdin=pipe, stdout=pipe, start_new_session=True
        )
        self._channels.append(channel := NiceChannel(process))
        return channel

    async def examine(self) -> Evidence | None:
        if self._root is None or not await asyncio.to_thread(self._root.exists):
            return Evidence(cause="machine_removed", detail="its directory is gone")
        return None

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()  # the runner ends at the end of its input, with all that it started
            async with asyncio.timeout(10):
                await channel.process.wait()
        if self._root is not None:
            await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)


@program(image="nice:15", timeout=120)
async def look_around(model: str) -> str:
    one = await agent("one", model=model, system_prompt="Use sh() to look around.")

    @one.on("sh")
    async def sh(command: str) -> str:
        """Run a shell command."""
        return (await one.exec(command)).text

    return await one.ask("How nice are you?")


def rule(messages: Sequence[Message]) -> str | Call:
    last = messages[-1]
    return Call("sh", {"command": "nice"}) if last["role"] == "user" else f"my niceness is {text_of(last).strip()}"


async def main() -> None:
    register_backend("nice", Nice)
    async with LocalModel(rule) as model:
        print(await look_around.options(**chosen(image="nice:15"))(model.name))


if __name__ == "__main__":
    asyncio.run(main())
