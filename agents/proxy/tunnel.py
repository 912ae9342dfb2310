"""How a program on a machine reaches the proxy on this host.

A command on a local machine shares this host's loopback and goes there directly. On any other machine a small relay is
started (:mod:`~palmette.agents.proxy.relay`), which listens on *its* loopback and carries connections over its own
input and output. That is one way for all backends, and it needs neither a network (a container has none by default) nor
a port that is open to others. The program only ever gets to the proxy, which asks for its token.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator
from importlib.resources import files

from palmette.agents.errors import AgentError
from palmette.machines import Machine, Process

_HEAD = struct.Struct(">II")
_START_SECONDS = 30.0
_PIECE = 1 << 16


class TunnelBroken(AgentError):
    """The relay on a machine ended, or could not be started."""

    retryable = True


@contextlib.asynccontextmanager
async def reachable(machine: Machine, port: int, *, timeout: float) -> AsyncGenerator[int]:
    """A port on ``machine``'s loopback that leads to ``port`` on this host's, for the length of a block.

    Args:
        machine: Where the program runs.
        port: The proxy's.
        timeout: Seconds after which the relay is killed.

    Raises:
        TunnelBroken: the relay did not start. Where it ends later, connections do.
        MachineLost: the machine is gone.
    """
    if (await machine.describe()).isolation == "none":
        yield port
        return
    source = (files("palmette.agents.proxy") / "relay.py").read_text("utf-8")
    process = await machine.open(["python3", "-I", "-S", "-B", "-c", source], timeout=timeout)
    tunnel = _Tunnel(process, port)
    carrying = asyncio.create_task(tunnel.carry(), name=f"tunnel to {port}")
    try:
        async with asyncio.timeout(_START_SECONDS):
            there = await tunnel.port
        yield there
    except TimeoutError:
        if tunnel.port.done() and not tunnel.port.cancelled():
            raise
        raise TunnelBroken(f"the relay on the machine did not start within {_START_SECONDS:g} s") from None
    finally:
        carrying.cancel()
        await asyncio.wait([carrying])
        await tunnel.close()
        await process.kill()
        await process.wait()


class _Tunnel:
    def __init__(self, process: Process, port: int) -> None:
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process = process
        self._to = port
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()

    async def carry(self) -> None:
        """From the machine to the proxy; until the relay ends."""
        data, said = b"", b""
        while (piece := await self._process.read()) is not None:
            stream, more = piece
            if stream == "stderr":
                said = (said + more)[-1000:]
                continue
            data += more
            while len(data) >= _HEAD.size:
                number, size = _HEAD.unpack_from(data)
                if len(data) < _HEAD.size + size:
                    break
                await self._take(number, data[_HEAD.size : _HEAD.size + size])
                data = data[_HEAD.size + size :]
        if not self.port.done():
            why = said.decode("utf-8", "replace").strip()
            self.port.set_exception(TunnelBroken(f"the relay on the machine ended: {why or 'without a word'}"))
        for writer in self._writers.values():
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self.port.cancel()

    async def _take(self, number: int, data: bytes) -> None:
        if number == 0:
            self.port.set_result(int(data))
            return
        writer = self._writers.get(number)
        if writer is None:
            if not data or number in self._tasks:
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers[number] = writer
            self._tasks[number] = asyncio.create_task(self._back(number, reader, writer))
        with contextlib.suppress(ConnectionError):
            if data:
                writer.write(data)
                await writer.drain()
            elif writer.can_write_eof():
                writer.write_eof()

    async def _back(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the proxy to the machine."""
        try:
            while True:
                try:
                    data = await reader.read(_PIECE)
                except ConnectionError:
                    data = b""
                async with self._lock:
                    await self._process.write(_HEAD.pack(number, len(data)) + data)
                if not data:
                    return
        except BrokenPipeError:
            return  # the relay has ended, which its reader tells
        finally:
            self._writers.pop(number, None)
            writer.close()
