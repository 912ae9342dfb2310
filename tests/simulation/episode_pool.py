"""The tree that simulations are tried on: a pool that plays episodes, each a small tree of its own."""

from __future__ import annotations

from palmette.actors import Actor, Down, System, TaskDone, endpoint
from palmette.supervisors import Backoff, ChildSpec, DynamicSupervisor, StartRefused, Supervisor, child

EPISODES = 20


class Sandbox(Actor):
    """Runs commands, each in half a second."""

    @endpoint
    async def run(self) -> None:
        """One command."""


class Player(Actor):
    """Three turns with a model that takes a second, each with a command in the sandbox."""

    async def continued(self) -> None:
        self.start_task(self.play(), tag="played")

    async def play(self) -> None:
        import asyncio

        sandbox = self.sibling("sandbox", Sandbox)
        for _ in range(3):
            await asyncio.sleep(1.0)
            await sandbox.call(Sandbox.run)

    async def receive(self, message: object) -> None:
        if isinstance(message, TaskDone):
            self.stop()


class Pool(Actor):
    """Plays every episode once, at most eight at a time, and counts how each one ended."""

    def __init__(self) -> None:
        self.todo = list(range(EPISODES))
        self.running: dict[int, int] = {}
        self.ended: dict[int, int] = {}

    async def continued(self) -> None:
        await self.fill()

    async def receive(self, message: object) -> None:
        assert isinstance(message, Down)
        number = self.running.pop(message.monitor)
        self.ended[number] = self.ended.get(number, 0) + 1
        await self.fill()

    async def fill(self) -> None:
        episodes = self.system.whereis("episodes", DynamicSupervisor)
        while self.todo and len(self.running) < 8:
            number = self.todo.pop(0)
            try:
                path = await episodes.call(DynamicSupervisor.start_child, episode(f"e{number}"))
            except StartRefused:
                self.ended[number] = self.ended.get(number, 0) + 1
                continue
            self.running[self.monitor(self.system.ref_at(path, Actor))] = number
        if not self.todo and not self.running:
            self.stop()

    @endpoint
    async def result(self) -> dict[int, int]:
        """Ends by episode."""
        return self.ended


def episode(name: str) -> ChildSpec[Supervisor]:
    """A sandbox, and a player who depends on it."""
    return Supervisor.spec(
        name=name,
        strategy="rest_for_one",
        auto_shutdown="any_significant",
        restart="temporary",
        children=[
            child(Sandbox, name="sandbox"),
            child(
                Player,
                name="player",
                restart="transient",
                significant=True,
                backoff=Backoff(min=0.1, max=1.0),
                rules={"retryable": "backoff"},
            ),
        ],
    )


def tree() -> ChildSpec[Supervisor]:
    """The pool beside its episodes."""
    return Supervisor.spec(
        auto_shutdown="any_significant",
        children=[
            DynamicSupervisor.spec(name="episodes"),
            child(Pool, name="pool", restart="transient", significant=True),
        ],
    )


async def main() -> dict[str, int]:
    """Play all; how many actors ended how often is in the log."""
    async with System.start(tree()) as system:
        reason = await system.wait_ended()
        assert str(reason.__struct_config__.tag) == "shutdown", reason
        ended = [record for record in system.exits if record.path.count("/") == 2]
        assert system.statistics().actors <= 2, "only the registry may be left"
        return {record.path: record.incarnation for record in ended}
