"""A planted bug, kept as a fixture: a lock that sometimes forgets to wake its waiter.

The lock looks whether it is free, asks an auditor for leave, and only then puts itself on the waiting list. A release
that comes in between finds nobody waiting, and the waiter sleeps on. Under most schedules the auditor answers in time.
"""

from __future__ import annotations

from palmette.actors import Actor, ReplyToken, System, TaskDone, deadline, endpoint
from palmette.supervisors import ChildSpec, Supervisor, child


class Auditor(Actor):
    """Gives leave to wait."""

    @endpoint
    async def allow(self) -> None:
        """Yes."""


class ForgetfulLock(Actor):
    """One holder at a time, and now and then one waiter who is never told."""

    def __init__(self) -> None:
        self.free = True
        self.waiting: list[ReplyToken[object]] = []

    @endpoint
    async def acquire(self) -> None:
        """Wait for the lock."""
        if self.free:
            self.free = False
            return
        self.start_task(self.queue_up(self.reply_later()))

    async def queue_up(self, token: ReplyToken[object]) -> None:
        await self.system.whereis("auditor", Auditor).call(Auditor.allow)
        self.waiting.append(token)  # too late, if the holder has released meanwhile

    @endpoint
    async def release(self) -> None:
        """Give the lock back."""
        if self.waiting:
            self.waiting.pop(0).reply(None)
        else:
            self.free = True


class User(Actor):
    """Takes the lock, holds it for some turns of the loop, gives it back."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    async def continued(self) -> None:
        self.start_task(self.work(), tag="done")

    async def work(self) -> None:
        lock = self.system.whereis("lock", ForgetfulLock)
        auditor = self.system.whereis("auditor", Auditor)
        with deadline(5.0):
            await lock.call(ForgetfulLock.acquire)
            for _ in range(self.turns):
                await auditor.call(Auditor.allow)
            await lock.call(ForgetfulLock.release)

    async def receive(self, message: object) -> None:
        if isinstance(message, TaskDone):
            self.stop()


def tree() -> ChildSpec[Supervisor]:
    """Two users of one lock."""
    users = [child(User, turns, name=f"user{turns}", restart="transient", significant=True) for turns in (2, 3)]
    return Supervisor.spec(
        auto_shutdown="all_significant",
        max_restarts=0,
        children=[child(Auditor, name="auditor"), child(ForgetfulLock, name="lock"), *users],
    )


async def main() -> None:
    """Ends well, unless the wake-up is lost: then a user's deadline passes and the tree gives up."""
    async with System.start(tree()) as system:
        await system.wait_ended()
