"""Order, reasons, dead letters and names, where several actors are at it at the same time."""

from __future__ import annotations

import asyncio

from support.probes import Probe, ended, running, text_of, worker
from support.worlds import everywhere, steps, turns

from palmette.actors import Down, MaxRestarts, Reason, Ref, Registry, Shutdown, Unregistered, endpoint
from palmette.actors.records import KEEP
from palmette.supervisors import Supervisor, child


class Sender(Probe):
    """Sends numbers, in every way there is, and gives way in between."""

    @endpoint
    async def send_all(self, to: Ref[Probe], count: int) -> None:
        for number in range(count):
            item = (self.path, number)
            match number % 3:
                case 0:
                    to.send(item)
                case 1:
                    to.cast(Probe.keep, item)
                case _:
                    await to.call(Probe.keep, item)
            await steps(number % 4)


@everywhere
async def test_messages_from_one_sender_arrive_in_order_whatever_others_send() -> None:
    names = ("a", "b", "c")
    async with running(worker(Probe), *(worker(Sender, name=name) for name in names)) as system:
        it = system.whereis("it", Probe)
        await asyncio.gather(*(system.whereis(name, Sender).call(Sender.send_all, it, 40) for name in names))
        seen = await it.call(Probe.seen)
        assert len(seen) == 120
        for name in names:
            path = f"/{name}"
            assert [item for item in seen if item[0] == path] == [(path, number) for number in range(40)]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]


@everywhere
async def test_the_reason_of_a_stop_reaches_the_hook_the_monitors_and_the_record() -> None:
    heard: list[Reason] = []

    class Leaving(Probe):
        async def stopping(self, reason: Reason) -> None:
            heard.append(reason)

    async with running(worker(Leaving), worker(Probe, name="watcher")) as system:
        it, watcher = system.whereis("it", Leaving), system.whereis("watcher", Probe)
        monitor = await watcher.call(Probe.do, lambda me: me.monitor(it))
        await it.stop(Shutdown("the data set is done"))
        reason = Shutdown("the data set is done")
        assert heard == [reason]
        assert await watcher.call(Probe.seen) == [Down(it, reason, monitor)]
        assert system.why("/it")[-1].reason == reason


@everywhere
async def test_dead_letters_are_counted_beyond_those_that_are_kept() -> None:
    async with running(worker(Probe)) as system:
        it = system.whereis("it", Probe)
        await it.stop()
        for number in range(KEEP + 5):
            it.send(number)
        assert system.statistics().dead_letters == KEEP + 5
        assert len(system.dead_letters) == KEEP
        assert system.dead_letters[-1].message == str(KEEP + 4)


@everywhere
async def test_a_name_is_free_in_the_instant_in_which_its_owners_death_is_told() -> None:
    """Whoever hears of the death, from a monitor or as a subscriber, can give the name away in the same breath."""

    class Heir(Probe):
        async def receive(self, message: object) -> None:
            if isinstance(message, Down | Unregistered):
                await self.system.whereis("registry", Registry).call(Registry.register, "throne", self.ref)
            await super().receive(message)

    async with running(worker(Probe), worker(Heir, name="son"), worker(Heir, name="daughter")) as system:
        registry, it = system.whereis("registry", Registry), system.whereis("it", Probe)
        son, daughter = system.whereis("son", Heir), system.whereis("daughter", Heir)
        await registry.call(Registry.register, "throne", it)
        await son.call(Probe.do, lambda me: me.monitor(it))
        it.kill("long live the king")
        await ended(it)
        await turns()
        assert system.whereis("throne", Heir) == son
        await registry.call(Registry.subscribe, daughter, "throne")
        await son.stop()
        await turns()
        assert system.whereis("throne", Heir) == daughter


@everywhere
async def test_a_name_that_was_taken_while_its_owner_was_down_keeps_the_owner_down() -> None:
    inner = Supervisor.spec(
        name="inner", restart="temporary", max_restarts=2, max_seconds=100, children=[child(Probe, name="it")]
    )
    async with running(inner, worker(Probe, name="other")) as system:
        registry, supervisor = system.whereis("registry", Registry), system.whereis("inner", Supervisor)
        it, other = system.whereis("it", Probe), system.whereis("other", Probe)
        supervisor.suspend()
        it.kill()
        await ended(it)
        await registry.call(Registry.register, "it", other)
        supervisor.resume()
        reason = await ended(supervisor)
        assert isinstance(reason, MaxRestarts)
        assert "the name 'it' belongs to /other" in text_of(reason.cause)
        assert system.whereis("it", Probe) == other
