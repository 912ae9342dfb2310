"""A worker that writes down its starts and stops, and ends in every way there is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from support.probes import Boom
from support.worlds import turns

from palmette.actors import Actor, Decline, Normal, Reason, Ref, Shutdown, System, endpoint
from palmette.supervisors import ChildSpec, Supervisor, child
from palmette.supervisors.policy import Restart


class Worker(Actor):
    """``diary`` gets ``+name`` for a start, ``!name`` for a failed one, ``?name`` for one that was declined, and
    ``-name`` for a stop."""

    diary: ClassVar[list[str]] = []
    fail: ClassVar[dict[str, int]] = {}
    """Starts that are going to fail, by name."""
    decline: ClassVar[dict[str, int]] = {}
    """Starts that are going to be declined, by name, after those that fail."""
    slow: ClassVar[dict[str, float]] = {}
    """Seconds that a start takes, by name."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    async def started(self) -> None:
        if self.name in self.slow:
            await asyncio.sleep(self.slow[self.name])
        if self.fail.get(self.name, 0):
            self.fail[self.name] -= 1
            self.diary.append(f"!{self.name}")
            raise Boom(f"no start of {self.name}")
        if self.decline.get(self.name, 0):
            self.decline[self.name] -= 1
            self.diary.append(f"?{self.name}")
            raise Decline(f"{self.name} is not needed")
        self.diary.append(f"+{self.name}")

    async def stopping(self, reason: Reason) -> None:
        if isinstance(reason, Shutdown):
            self.diary.append(f"-{self.name}")

    @endpoint
    async def ping(self) -> int:
        return self.ref.incarnation

    @endpoint
    async def end(self, how: Reason | BaseException) -> None:
        """End by oneself."""
        if isinstance(how, BaseException):
            raise how
        self.stop(how)


def workers(names: str, restart: Restart = "permanent", **options: object) -> list[ChildSpec[Worker]]:
    """One child for each letter."""
    return [child(Worker, name=name, restart=restart, **options) for name in names]  # pyright: ignore[reportArgumentType]


def root_of(system: System) -> Ref[Supervisor]:
    """The supervisor under test."""
    return system.whereis("/", Supervisor)


def at(system: System, name: str) -> Ref[Worker]:
    """The child ``name`` of the root, alive or not."""
    return system.ref_at(f"/{name}", Worker)


async def crash(system: System, *names: str) -> None:
    """Crash these children, all before their supervisor learns of any, and let it do its work."""
    await end(system, dict.fromkeys(names, Boom("crash")))


async def finish(system: System, name: str, reason: Reason | None = None) -> None:
    """Have a child end by itself."""
    await end(system, {name: reason or Normal()})


async def end(system: System, how: Mapping[str, Reason | BaseException]) -> None:
    """Have children end by themselves, in this order, all before their supervisor learns of any."""
    supervisor = system.ref_at("/", Actor)
    if len(how) > 1:
        supervisor.suspend()
    for name, reason in how.items():
        at(system, name).cast(Worker.end, reason)
        await turns(200)
    if len(how) > 1:
        supervisor.resume()
        await turns(200)


def incarnations(system: System, names: str) -> list[int]:
    """How often each child was started."""
    return [at(system, name).incarnation for name in names]


async def states(system: System) -> dict[str, str]:
    """The children of the root, in order, with their states."""
    return {info.name: info.state for info in await root_of(system).call(Supervisor.which_children)}


def diary() -> str:
    """What happened since the last look, as one line."""
    line = " ".join(Worker.diary)
    Worker.diary.clear()
    return line
