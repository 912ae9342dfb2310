"""A stand-in for E2B, and backends that use it, for the tests in this folder.

A test module imports the fixtures that it uses, as a conftest would.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from importlib import import_module

import pytest
from support.e2b_stand_in import Connection, StandIn

from palmette.machines.e2b import E2bAccount, E2bBackend
from palmette.machines.e2b.channel import E2bChannel
from palmette.machines.errors import MachineError
from palmette.machines.identity import MachineId

SOON = 5.0
"""Seconds within which whoever waits learns that the other side is gone."""


def machine_id() -> str:
    return str(MachineId.new("e2b-test"))


@pytest.fixture(scope="session")
def sdk() -> None:
    _warm()


@cache
def _warm() -> None:
    """The SDK's own threads and sockets, which stay for the process's life, are made before anything is counted."""

    async def use(connection: Connection) -> None:
        e2b = import_module("e2b")
        assert not await e2b.AsyncSandbox.kill("none", **connection)

    with StandIn.running() as server:
        asyncio.run(use(server.connection))


@pytest.fixture(scope="session")
def shared_stand_in(sdk: None) -> Iterator[StandIn]:
    with StandIn.running() as server:
        yield server


@pytest.fixture
async def stand_in(shared_stand_in: StandIn) -> AsyncIterator[StandIn]:
    """One server for all tests that neither freeze nor kill it."""
    await shared_stand_in.forget()
    yield shared_stand_in
    await shared_stand_in.forget()


@pytest.fixture
def mortal_stand_in(sdk: None) -> Iterator[StandIn]:
    """A server of the test's own."""
    with StandIn.running() as server:
        yield server


@pytest.fixture
async def made(stand_in: StandIn) -> AsyncIterator[Callable[..., E2bBackend]]:
    """Makes backends that the test need not stop; at the end E2B has no sandbox left."""
    backends: list[E2bBackend] = []

    def make(template: str = "", **options: object) -> E2bBackend:
        options.setdefault("account", E2bAccount(**stand_in.connection))
        backends.append(E2bBackend(template, machine_id(), **options))  # pyright: ignore[reportArgumentType]
        return backends[-1]

    yield make
    if not stand_in.alive:
        for backend in backends:
            with pytest.raises(MachineError, match="may live on"):
                await backend.stop()
        return
    for backend in backends:
        await backend.stop()
    assert (await stand_in.report()).sandboxes == {}
    assert (await stand_in.report()).leaks == 0


@pytest.fixture
async def backend(made: Callable[..., E2bBackend]) -> E2bBackend:
    """One with a sandbox."""
    one = made()
    await one.start()
    return one


async def read_all(channel: E2bChannel) -> bytes:
    """To the end."""
    got = bytearray()
    while data := await channel.read():
        got += data
    return bytes(got)


async def read_exactly(channel: E2bChannel, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await channel.read()
        assert data, f"the stream ended after {len(got)} of {size} bytes: {channel.complaint}"
        got += data
    return bytes(got)


def random_bytes(size: int) -> bytes:
    return secrets.token_bytes(size)


async def eventually(ask: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + 20
    while not await ask():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.01)
