"""What ends programs elsewhere ends one actor here; and no cancellation breaks what code does to clean up."""

from __future__ import annotations

import asyncio

import pytest
from support.probes import Probe, actor_of, ended, last_exit, running, worker
from support.worlds import everywhere, took, turns

from palmette.actors import Actor, ActorDied, Crashed, Killed, Reason, Shutdown, endpoint
from palmette.supervisors import StartRefused, Supervisor

ENDS = [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException]


class Fatal(Actor):
    """Raises where it is told to."""

    def __init__(self, where: str, error: type[BaseException]) -> None:
        self.where = where
        self.error = error
        self.act("__init__")

    def act(self, where: str) -> None:
        if where == self.where:
            raise self.error("enough")

    async def started(self) -> None:
        await asyncio.sleep(1)
        self.act("started")

    async def continued(self) -> None:
        self.act("continued")

    async def receive(self, message: object) -> None:
        self.act("receive")

    async def stopping(self, reason: Reason) -> None:
        self.act("stopping")

    @endpoint
    async def handle(self) -> None:
        await asyncio.sleep(1)
        self.act("handle")
        self.start_task(self.beside())

    async def beside(self) -> None:
        self.act("beside")


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("where", ["__init__", "started"])
@everywhere
async def test_a_start_that_is_left_by_it_fails_with_it(where: str, error: type[BaseException]) -> None:
    async with running() as system:
        root = system.whereis("/", Supervisor)
        with pytest.raises(StartRefused, match=f"/it could not start: {error.__name__}: enough"):
            await root.call(Supervisor.start_child, worker(Fatal, where, error))


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("where", ["continued", "receive", "handle", "beside", "stopping"])
@everywhere
async def test_whatever_code_is_left_by_it_ends_its_actor_and_nobody_else(
    where: str, error: type[BaseException]
) -> None:
    async with running(worker(Fatal, where, error), worker(Probe, name="other")) as system:
        ref = system.ref_at("/it", Fatal)
        if ref.is_alive() and where != "continued":
            end = asyncio.create_task(ended(ref))
            call = asyncio.create_task(ref.call(Fatal.handle))
            await asyncio.sleep(2)
            ref.send("message")
            await turns()
            if where == "stopping":
                with pytest.raises(ActorDied, match=f"{error.__name__}: enough"):
                    await ref.stop()
            await end
            if where == "handle":
                with pytest.raises(ActorDied, match=f"{error.__name__}: enough"):
                    await call
            else:
                await call
        await turns()
        reason = last_exit(system, "/it").reason
        assert isinstance(reason, Crashed)
        assert (reason.error, reason.text) == (f"builtins.{error.__name__}", "enough")
        assert await system.whereis("other", Probe).call(Probe.seen) == []
        assert took(1 if where == "continued" else 3)  # each end at once


# --- cleaning up ------------------------------------------------------------------------------------------------------


class Tidy(Probe):
    """Cleans up after itself, which takes two seconds, or more."""

    def __init__(self, log: list[str], seconds: float = 2.0) -> None:
        super().__init__()
        self.log = log
        self.seconds = seconds

    async def tidy(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.seconds)
            self.log.append("tidied")

    @endpoint
    async def work(self) -> None:
        await self.tidy()


@everywhere
async def test_a_handler_that_cleans_up_after_a_crash_is_left_to_it() -> None:
    log: list[str] = []
    async with running(worker(Tidy, log)) as system:
        ref = system.whereis("it", Tidy)
        call = asyncio.create_task(ref.call(Tidy.work))
        await turns()
        cell = actor_of(ref)._cell  # pyright: ignore[reportPrivateUsage]
        cell.crash(Killed("first"))
        await asyncio.sleep(1)
        cell.crash(Killed("second"))
        stop = asyncio.create_task(ref.stop(Killed("first")))
        with pytest.raises(ActorDied, match="first"):
            await call
        await stop
        assert log == ["tidied"]
        assert took(2)


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
@everywhere
async def test_a_task_that_cleans_up_is_cancelled_once_however_its_actor_ends(how: str) -> None:
    log: list[str] = []
    async with running(worker(Tidy, log)) as system:
        system.kill_grace = 10
        ref = system.whereis("it", Tidy)
        actor = actor_of(ref)
        actor.start_task(actor.tidy())
        await turns()
        end = asyncio.create_task(ended(ref))
        if how == "stop":
            await ref.stop(Shutdown("now"))
        elif how == "kill":
            ref.kill()
        else:
            ref.cast(Probe.fail)
        await end
        assert log == ["tidied"]
        assert took(2)


@everywhere
async def test_a_task_that_starts_another_to_clean_up_leaves_none_behind() -> None:
    log: list[str] = []
    async with running(worker(Tidy, log)) as system:
        system.kill_grace = 10
        ref = system.whereis("it", Tidy)
        actor = actor_of(ref)

        async def first() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await turns()  # its actor waits for it by now, and has cancelled all that there was
                actor.start_task(actor.tidy())
                actor.send_after(1, "never")
                await turns()  # that one has begun, and has something to clean up itself

        actor.start_task(first())
        await turns()
        await ref.stop()
        assert log == ["tidied"]
        assert took(2)
        await asyncio.sleep(2)
        assert system.statistics().dead_letters == 0


@everywhere
async def test_a_hook_that_cleans_up_after_a_kill_is_not_cancelled_again_at_its_time_limit() -> None:
    log: list[str] = []

    class Slow(Tidy):
        async def stopping(self, reason: Reason) -> None:
            await self.tidy()

    async with running(worker(Slow, log, 20.0, shutdown=30)) as system:
        system.kill_grace = 100
        ref = system.whereis("it", Slow)
        stop = asyncio.create_task(ref.stop(timeout=1000))
        await asyncio.sleep(20)
        ref.kill("hurry")
        with pytest.raises(ActorDied, match="hurry"):
            await stop
        assert log == ["tidied"]
        assert took(40)
