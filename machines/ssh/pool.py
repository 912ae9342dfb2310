"""Connections shared by all machines with the same login, as many as MaxSessions makes necessary.

A machine takes a *seat* on a connection when it starts and gives it back when it has stopped; the connection is closed
with its last seat. OpenSSH starts ten programs per connection unless it is configured otherwise: nine seats, and one
program at a time for short errands. A server that allows fewer says so when it is asked; what it says is remembered for
the connection, and the rest goes to another one.

One pool per event loop, found by :func:`pool`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from palmette.machines.errors import ImageUnusable, MachineLost
from palmette.machines.ssh.address import Address
from palmette.machines.ssh.connection import Answer, Connection, SessionsExhausted

SEATS = 9
_LOGINS = 4
"""Logins to one host at the same time; sshd begins to drop them at ten (MaxStartups)."""


class _Shared:
    """One connection, perhaps still being opened."""

    def __init__(self, address: Address, seats: int) -> None:
        self.address = address
        self.taken = 0
        self.seats = seats
        self.opening: asyncio.Task[Connection]
        self.jump: Seat | None = None
        """Its own seat on the connection that it leads through."""

    @property
    def has_room(self) -> bool:
        if self.taken >= self.seats:
            return False
        connection = self.connection
        return not self.opening.done() if connection is None else connection.alive

    @property
    def connection(self) -> Connection | None:
        """``None`` until it is open, and if it could not be opened."""
        done = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if done else None


class Seat:
    """A place on :attr:`connection`; :meth:`release` it."""

    def __init__(self, pool: Pool, shared: _Shared, connection: Connection) -> None:
        self.connection = connection
        self._pool = pool
        self._shared: _Shared | None = shared

    async def move(self, error: SessionsExhausted) -> None:
        """Go to another connection, as the server refused a program on this one.

        Raises:
            ImageUnusable: it refuses the first one, too.
            As :meth:`Connection.open`. The seat is where it was.
        """
        address = self.connection.address
        if error.allowed == 0 or self._shared is None:
            raise ImageUnusable(
                f"{address} lets us in and starts no program; its sshd needs MaxSessions of at least 1"
            ) from error
        self._pool.learn(self._shared, error.allowed)
        other = await self._pool.seat(address)
        left, self._shared, self.connection = self._shared, other._shared, other.connection
        await self._pool.leave(left)

    async def release(self, *, stuck: bool = False) -> None:
        """Give the seat back. ``stuck``: a program of ours has not ended, and the server counts it. Twice is fine."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.seats -= stuck
            await self._pool.leave(shared)


class Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self._shared: dict[Address, list[_Shared]] = {}
        self._logins: dict[Address, asyncio.Semaphore] = {}
        self._limits: dict[Address, int] = {}
        self._hanging_up: set[asyncio.Task[None]] = set()

    async def seat(self, address: Address) -> Seat:
        """A place on a living connection, a new one if need be.

        Raises:
            As :meth:`Connection.open`.
        """
        connections = self._shared.setdefault(address, [])
        shared = next((one for one in connections if one.has_room), None)
        if shared is None:
            shared = _Shared(address, self._limits.get(address, SEATS))
            shared.opening = asyncio.create_task(self._open(shared), name=f"log in at {address}")
            connections.append(shared)
        shared.taken += 1
        try:
            # Shielded, as others wait for it too: whoever leaves last cancels it.
            return Seat(self, shared, await asyncio.shield(shared.opening))
        except BaseException:
            await self.leave(shared)
            raise

    async def errand(
        self, address: Address, seat: Seat | None, argv: Sequence[str], *, stdin: bytes = b"", seconds: float
    ) -> Answer:
        """Run a short program on the host: over ``seat``'s connection, or another one if that is full, or dead by then.

        Raises:
            As :meth:`Connection.open` and :meth:`Connection.run`.
        """
        if seat is not None and seat.connection.alive:
            try:
                return await seat.connection.run(argv, stdin=stdin, seconds=seconds)
            except SessionsExhausted:
                pass
            except MachineLost:
                if seat.connection.alive:
                    raise
        other = await self.seat(address)
        try:
            while True:
                try:
                    return await other.connection.run(argv, stdin=stdin, seconds=seconds)
                except SessionsExhausted as error:
                    await other.move(error)
        finally:
            await other.release()

    def learn(self, shared: _Shared, allowed: int) -> None:
        """The server starts only ``allowed`` programs over one connection: so many machines, less one for errands."""
        limit = min(self._limits.get(shared.address, SEATS), max(1, allowed - 1))
        self._limits[shared.address] = limit
        shared.seats = min(shared.seats, limit)

    async def leave(self, shared: _Shared) -> None:
        """One machine less; the last one closes the connection."""
        shared.taken -= 1
        if shared.taken:
            return
        connections = self._shared[shared.address]
        connections.remove(shared)
        if not connections:
            del self._shared[shared.address]
            self._logins.pop(shared.address, None)
            self._limits.pop(shared.address, None)
        # A task of its own: who leaves because it was cancelled may be cancelled again.
        task = asyncio.create_task(self._hang_up(shared), name=f"hang up on {shared.address}")
        self._hanging_up.add(task)
        task.add_done_callback(self._hanging_up.discard)
        await asyncio.shield(task)

    async def _open(self, shared: _Shared) -> Connection:
        address = shared.address
        async with self._logins.setdefault(address, asyncio.Semaphore(_LOGINS)):
            if address.jump is not None:
                shared.jump = await self.seat(address.jump)
            return await Connection.open(address, shared.jump.connection if shared.jump is not None else None)

    async def _hang_up(self, shared: _Shared) -> None:
        shared.opening.cancel()
        await asyncio.wait([shared.opening])
        if shared.connection is not None:
            await shared.connection.close()
        if shared.jump is not None:
            await shared.jump.release()


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()


def pool() -> Pool:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = Pool()
    return _pools[loop]
