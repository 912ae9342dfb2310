"""Keep a node up on another host until somebody interrupts, and take it down then."""

from __future__ import annotations

import asyncio

from palmette.actors import System
from palmette.actors.exits import Killed
from palmette.console.failures import say
from palmette.console.interrupts import Interrupts
from palmette.machines.carrier import NodePlan, carried_node
from palmette.supervisors import Supervisor


async def keep_up(plan: NodePlan, name: str) -> int:
    """Do so, as the member ``name``; returns the exit code.

    Raises:
        ActorDied: it cannot be brought up, and another try would fail alike.
    """
    interrupted = asyncio.Event()
    tree = Supervisor.spec(name="up", children=[carried_node(plan, name=name)])
    async with System.start(tree, name="up") as system:
        root = system.slots["/"].target
        assert root is not None
        interrupts = Interrupts(on_first=interrupted.set, on_second=lambda: root.kill(Killed("interrupted twice")))
        with interrupts.installed():
            await interrupted.wait()  # a system that gives up ends it
            say(f"taking {name} down")
    return interrupts.code or 0
