"""What becomes of a pi that crashes, hangs, or is let down by its model; and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from harness_support import is_running, setup_of, written
from pi_support import calls, pi_on, pi_process, pi_processes, text
from pi_support import factory as factory
from pi_support import machine as machine
from pi_support import machines as machines
from pi_support import pi_command as pi_command
from pi_support import proxy as proxy
from proxy_support import proxy_of, proxy_system
from support.openai_server import Hang, HangUp, OpenAIServer, status

from palmette.actors import ActorDied, Ref
from palmette.agents import ModelRefused, ModelUnavailable, tool
from palmette.agents.harness import HarnessFactory, Settled, ToolBegan
from palmette.agents.harnesses import HarnessDied, HarnessError, HarnessHung, pi, pi_harness
from palmette.agents.limiter import LimiterSettings
from palmette.agents.proxy import Proxy, Upstream
from palmette.agents.toolbox import Toolbox
from palmette.machines import LocalMachine

STAYS = "setsid sleep 1000 & echo $! > stays; wait"
"""A command whose child has a session of its own, as pi's tools have, and outlives a signal to pi's group."""


async def test_a_pi_that_is_killed_is_a_crash_and_takes_its_tools_along(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """kill -9 of pi alone leaves its tools' processes running; the machine does not."""
    openai_server.plan(calls("bash", {"command": STAYS}))
    async with pi_on(factory, machine) as run:
        await run.harness.send("go")
        child = int(await written(machine, "stays"))
        pi_process().kill()
        with pytest.raises(HarnessDied, match=r"pi ended by signal 9"):
            await run.settled()
    assert not is_running(child)


async def test_a_pi_that_ends_by_itself_is_a_crash_with_its_last_words(
    factory: HarnessFactory, machine: LocalMachine
) -> None:
    async with pi_on(factory, machine) as run:
        pi_process().send_signal(signal.SIGTERM)
        with pytest.raises(HarnessDied, match=r"exit code 143"):
            await run.settled()


async def test_a_pi_that_hangs_is_noticed(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the middle of a call; its process lives on and says nothing."""
    monkeypatch.setattr(pi, "PING_SECONDS", 1.0)
    monkeypatch.setattr(pi, "GRACE", 0.3)
    openai_server.plan(Hang())
    async with pi_on(factory, machine) as run:
        await run.harness.send("go")
        await openai_server.asked()
        os.kill(pi_process().pid, signal.SIGSTOP)
        with pytest.raises(HarnessHung, match="did not answer 'get_state' within 1 s"):
            await run.settled()


@pytest.mark.parametrize(
    ("reaction", "error", "retryable", "retry_after"),
    [
        (status(429, "slow down", retry_after="7"), ModelUnavailable, True, 7.0),
        (status(529, "overloaded"), ModelUnavailable, True, None),
        (status(401, "no such key"), ModelRefused, False, None),
        (HangUp(), ModelUnavailable, True, None),
    ],
)
async def test_a_call_that_fails_is_the_harness_end_with_the_models_own_error(
    factory: HarnessFactory,
    machine: LocalMachine,
    openai_server: OpenAIServer,
    reaction: object,
    error: type[Exception],
    retryable: bool,
    retry_after: float | None,
) -> None:
    """pi would end its run as if all were well; and it asks once, not again and again."""
    openai_server.plan(reaction)  # pyright: ignore[reportArgumentType]
    async with pi_on(factory, machine) as run:
        await run.harness.send("go")
        with pytest.raises(error) as failed:
            await run.settled()
    assert getattr(failed.value, "retryable", None) is retryable
    assert getattr(failed.value, "retry_after", None) == retry_after
    assert len(openai_server.requests) == 1


async def test_a_pi_that_cannot_start_says_why(proxy: Ref[Proxy], machine: LocalMachine) -> None:
    """And leaves nothing."""
    factory = pi_harness(proxy, command=["sh", "-c", "echo there is no pi here >&2; exit 3", "pi"])
    with pytest.raises(HarnessDied, match="exit code 3: there is no pi here"):
        await factory(setup_of(machine)).__aenter__()


async def test_what_pi_refuses_is_an_error(factory: HarnessFactory, machine: LocalMachine) -> None:
    async with pi_on(factory, machine) as run:
        with pytest.raises(HarnessError, match="refuses 'prompt'"):
            await run.harness._running().ask("prompt", seconds=20, message=None)  # pyright: ignore


async def test_stopping_in_the_middle_of_a_run_leaves_nothing(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """Neither of pi's tools, whatever session they are in, nor of ours."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    toolbox = Toolbox()
    toolbox.add(tool(wait))
    openai_server.plan(calls("bash", {"command": f"({STAYS}) > /dev/null 2>&1 & sleep 0.5"}), calls("wait", {}))
    async with pi_on(factory, machine, toolbox) as run:
        await run.harness.send("go")
        child = int(await written(machine, "stays"))
        await run.until(lambda event: isinstance(event, ToolBegan) and event.call.name == "wait")
        await begun.wait()  # which pi's word of it may come before
        assert is_running(child)
        process = pi_process()
    assert stopped.is_set()
    assert not is_running(child)
    assert not is_running(process.pid)


async def test_a_start_that_is_called_off_leaves_nothing(factory: HarnessFactory, machine: LocalMachine) -> None:
    """Wherever in its start it is caught."""
    for pause in (0.0, 0.05, 0.3):
        starting = asyncio.create_task(factory(setup_of(machine)).__aenter__())
        await asyncio.sleep(pause)
        starting.cancel()
        await asyncio.wait([starting])
        assert pi_processes() == []


async def test_pi_asks_nothing_while_its_agent_is_paused(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    may_go_on = asyncio.Event()
    openai_server.plan(text("hi"))
    async with pi_on(factory, machine, may_go_on=may_go_on) as run:
        await run.harness.send("hello")
        reading = asyncio.create_task(run.settled())
        await asyncio.wait([reading], timeout=0.3)
        assert openai_server.requests == []
        may_go_on.set()
        assert await reading == Settled(answer="hi")


async def test_the_proxys_death_is_the_harness_end(machine: LocalMachine, pi_command: list[str]) -> None:
    """It learns of it at once, not from its next call."""
    async with OpenAIServer() as server, proxy_system(Upstream(server.base_url), LimiterSettings()) as system:
        factory = pi_harness(proxy_of(system), command=pi_command)
        async with pi_on(factory, machine) as run:
            proxy_of(system).kill()
            with pytest.raises(ActorDied):
                await run.settled()
