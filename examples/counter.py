"""A counter that breaks, and heals.

    python examples/counter.py

One actor under one supervisor. A negative step crashes the counter: its caller learns of it at once, the supervisor
starts it anew from its spec, and the reference that everybody holds goes on working.
"""

from __future__ import annotations

import asyncio

from palmette.actors import Actor, ActorDied, System, endpoint
from palmette.supervisors import Supervisor, child


class Counter(Actor):
    """Counts up; a negative step crashes it."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    @endpoint
    async def add(self, step: int) -> int:
        """Add ``step`` and return the sum."""
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        self.value += step
        return self.value


TREE = Supervisor.spec(
    strategy="one_for_one",
    max_restarts=3,
    max_seconds=5.0,
    children=[child(Counter, start=10, name="counter", restart="permanent")],
)


async def main() -> None:
    async with System.start(TREE) as system:
        counter = system.whereis("counter", Counter)
        print("10 + 5 =", await counter.call(Counter.add, 5))
        try:
            await counter.call(Counter.add, -1)
        except ActorDied as error:
            print(error)
        await system.wait_for("counter", Counter)
        print("10 + 1 =", await counter.call(Counter.add, 1), f"(incarnation {counter.incarnation})")


if __name__ == "__main__":
    asyncio.run(main())
