"""Work that blocks, in processes that can really be killed.

    python examples/workers.py

Two workers count primes in processes of their own: one word in the child spec. The program kills one of them with
SIGKILL in the middle of its work. The caller gets an error in the same moment instead of a time-out, the supervisor
starts a new process, and the work is asked for again, by a child whose restart is the retry.
"""

from __future__ import annotations

import asyncio
import os
import signal

from palmette.actors import Actor, System, TaskDone, deadline, endpoint
from palmette.supervisors import Backoff, Supervisor, child


class PrimeCounter(Actor):
    """Counts primes the slow way. Its handler blocks, which is fine: it has its process for itself."""

    @endpoint
    async def pid(self) -> int:
        """The worker's process."""
        return os.getpid()

    @endpoint
    async def count(self, below: int) -> int:
        """How many primes there are below ``below``."""
        return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


class Question(Actor):
    """Asks one worker one question, prints the answer, and is done. If the worker dies, so does the question."""

    def __init__(self, worker: str, below: int) -> None:
        self.worker = worker
        self.below = below

    async def continued(self) -> None:
        self.start_task(self.ask(), tag="answer")

    async def ask(self) -> int:
        worker = await self.system.wait_for(self.worker, PrimeCounter)
        with deadline(60.0):
            return await worker.call(PrimeCounter.count, self.below)

    async def receive(self, message: object) -> None:
        if isinstance(message, TaskDone):
            print(f"{self.worker}: {message.value} primes below {self.below}")
            self.stop()


TREE = Supervisor.spec(
    auto_shutdown="all_significant",
    children=[
        child(PrimeCounter, name="left", isolation="process"),
        child(PrimeCounter, name="right", isolation="process"),
        *(
            child(
                Question,
                side,
                200_000,
                name=f"ask-{side}",
                restart="transient",
                significant=True,
                backoff=Backoff(min=0.05),
                rules={"retryable": "backoff"},
            )
            for side in ("left", "right")
        ),
    ],
)


async def main() -> None:
    async with System.start(TREE) as system:
        victim = next(node.pid for node in system.tree().children if node.name == "left")
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        await system.wait_ended()
        for record in system.exits:
            if record.path in ("/left", "/ask-left"):
                print(str(record).replace(str(victim), "PID"))


if __name__ == "__main__":
    asyncio.run(main())
