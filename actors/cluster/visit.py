"""One question to the head of a cluster, from a process that is no part of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from palmette.actors.actor import Actor
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.credentials import Credentials
from palmette.actors.cluster.peers import connect
from palmette.actors.cluster.records import HEAD
from palmette.actors.deadlines import deadline
from palmette.actors.ref import Ref
from palmette.actors.system import System
from palmette.actors.wire import Enter

A = TypeVar("A", bound=Actor)
T = TypeVar("T")

SECONDS: Final = 10.0


async def visit(address: Address, actor: type[A], question: Callable[[Ref[A]], Awaitable[T]]) -> T:
    """Connect to the head at ``address``, ask, and leave.

    Raises:
        OSError: it does not answer.
        ActorDied, DeadlineExceeded, Refused: what the question ended with.
    """
    credentials = await asyncio.to_thread(Credentials.load)
    # It has no tree: it only asks.
    system = System(name="visitor")
    who = Enter("visitor", f"visitor-{os.getpid()}", 0)
    head = await connect(system, address, credentials, who, lambda why: None)
    try:
        with deadline(SECONDS):
            return await question(head.ref(HEAD, actor))
    finally:
        head.close()
        system.expiry.close()
