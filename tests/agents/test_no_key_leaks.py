"""The provider's key stays with whoever sends the requests: a canary is looked for everywhere else.

In all processes that are started (arguments and environment), in every log record, in what would be written to a
journal, in exit reasons with their tracebacks, in the state that actors show, and on the machine.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import msgspec
import psutil
import pytest
from harness_support import Run, until
from pi_support import calls, pi_on, text
from pi_support import machine as machine
from pi_support import machines as machines
from pi_support import pi as pi
from pi_support import pi_command as pi_command
from proxy_support import proxy_of, proxy_system
from support.openai_server import OpenAIServer, says, status

from palmette.actors import Actor, System
from palmette.agents import Message, ModelRefused, OpenAIClient
from palmette.agents.harness import ToolBegan
from palmette.agents.harnesses import pi_harness
from palmette.agents.limiter import LimitedClient, Limiter, LimiterSettings
from palmette.agents.programs import FileRecorder, ProgramEnded, agent, current_system, program
from palmette.agents.proxy import Proxy, ProxyLine, Upstream
from palmette.machines import LocalMachine
from palmette.supervisors import DynamicSupervisor, child

CANARY = "sk-canary-7f3a9"
KEY_ENV = "PALMETTE_TEST_CANARY"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv(KEY_ENV, CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, by the SDK and its HTTP library too."""
    with caplog.at_level(logging.DEBUG):
        yield caplog
    told = [record for record in caplog.records if CANARY in record.getMessage() or CANARY in repr(record.args)]
    assert told == []


@pytest.fixture
async def system(openai_server: OpenAIServer) -> AsyncIterator[System]:
    openai_server.key = CANARY
    async with proxy_system(Upstream(openai_server.base_url, KEY_ENV), LimiterSettings()) as one:
        yield one
        for name, actor in (("proxy", Proxy), ("limiter", Limiter)):
            state = await system_state(one, name, actor)
            assert CANARY not in state, name
        assert CANARY not in repr(list(one.exits))


async def system_state(system: System, name: str, actor: type[Actor]) -> str:
    return repr(await system.whereis(name, actor).state())


def in_processes() -> list[str]:
    """Where the canary stands in the process list; this process's own environment, which is the user's, left out."""
    found: list[str] = []
    for one in psutil.Process().children(recursive=True):
        for kind in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{one.pid}/{kind}").read_bytes()
            except OSError:
                continue
            if CANARY.encode() in data:
                found.append(f"{kind} of {one.pid}")
    if CANARY.encode() in Path("/proc/self/cmdline").read_bytes():
        found.append("own arguments")
    return found


def on_machine(machine: LocalMachine) -> list[str]:
    """Files on the machine that hold the canary."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(machine.directory)
        for name in names
        if CANARY.encode() in Path(folder, name).read_bytes()
    ]


class Asking(Actor):
    """Crashes with whatever its model says."""

    def __init__(self, client: LimitedClient) -> None:
        self._client = client

    async def continued(self) -> None:
        question = [Message(role="user", content="?")]
        await self._client.session("t", seed=0).complete(question, timeout=20)


async def test_a_crash_of_an_agent_does_not_tell_the_key(
    system: System, openai_server: OpenAIServer, logs: pytest.LogCaptureFixture
) -> None:
    """Though the server quotes it, as OpenAI's does."""
    openai_server.plan(status(401, f"Incorrect API key provided: {CANARY}. Get one."))
    client = OpenAIClient("m", base_url=openai_server.base_url, api_key_env=KEY_ENV)
    limited = LimitedClient(client, system.whereis("limiter", Limiter))
    agents = system.whereis("agents", DynamicSupervisor)
    await agents.call(DynamicSupervisor.start_child, child(Asking, limited, name="asking", restart="temporary"))
    await openai_server.asked()
    await until(lambda: bool(list(system.exits)))
    ended = list(system.exits)
    await client.close()
    assert "refuses the API key" in repr(ended)
    assert CANARY not in repr(ended)
    assert CANARY not in repr(client) + repr(limited)


async def test_a_program_behind_the_proxy_never_sees_the_key(
    system: System, openai_server: OpenAIServer, logs: pytest.LogCaptureFixture
) -> None:
    """In an answer, an error, or what is kept of them."""
    openai_server.plan(says("hi"), status(400, f"bad key {CANARY}"))
    async with (
        ProxyLine.open(proxy_of(system), "worker") as line,
        httpx2.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {line.session.token}"}) as client,
    ):
        kept = line.calls()
        question = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        url = f"{line.session.base_url()}/chat/completions"
        seen = [await client.post(url, json=question, timeout=20) for _ in range(2)]
        told = [msgspec.json.encode(await anext(kept)) for _ in range(2)]
    assert [answer.status_code for answer in seen] == [200, 400]
    assert not any(CANARY in answer.text or CANARY in repr(dict(answer.headers)) for answer in seen)
    assert not any(CANARY.encode() in each for each in told)
    assert CANARY not in repr(line.environment()) + repr(line.session)


async def test_pi_and_its_machine_never_see_the_key(
    system: System,
    machine: LocalMachine,
    pi_command: list[str],
    openai_server: OpenAIServer,
    logs: pytest.LogCaptureFixture,
) -> None:
    """Neither pi, its tools, the machine's files, nor the process list while all of it runs."""
    openai_server.plan(
        calls(
            "bash", {"command": "env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' '\\n'"}
        ),
        text("done"),
        status(401, f"Incorrect API key provided: {CANARY}"),
    )
    factory = pi_harness(proxy_of(system), command=pi_command)
    async with pi_on(factory, machine) as run:
        await run.harness.send("look around")
        await run.until(lambda event: isinstance(event, ToolBegan))
        assert in_processes() == []
        await run.settled()
        assert in_processes() == []
        assert on_machine(machine) == []
        with pytest.raises(ModelRefused) as refused:
            await run.asked("again")
        assert CANARY not in str(refused.value)
    looked_around(run)


async def test_neither_the_record_nor_the_crash_of_a_program_holds_the_key(
    machines: None, pi: str, openai_server: OpenAIServer, tmp_path: Path, logs: pytest.LogCaptureFixture
) -> None:
    """What it keeps on disk, tells, and fails with; agents with pi and without."""
    openai_server.key = CANARY
    folder = tmp_path / "record"

    @program(control=False, image="local", timeout=60)
    async def main(harness: str) -> None:
        worker = await agent("worker", model=f"openai/m@{openai_server.base_url}", harness=harness)
        openai_server.plan(text("hi") if harness != "react" else says("hi"))
        assert await worker.ask("hello") == "hi"
        openai_server.plan(status(401, f"Incorrect API key provided: {CANARY}"))
        try:
            await worker.ask("again")
        finally:
            told.append([worker.events.snapshot(), list(current_system().exits), worker.talk.turns])

    told: list[object] = []
    for number, harness in enumerate((pi, "react")):
        with pytest.raises(ProgramEnded, match="ModelRefused") as failed:
            await main.options(recorder=FileRecorder(folder / str(number)))(harness)
        told.append("".join(traceback.format_exception(failed.value)))
    assert "refuses the API key" in repr(told)
    assert CANARY not in repr(told)
    kept = [path.read_bytes() for path in folder.rglob("*.jsonl")]
    assert len([each for each in kept if b"hello" in each]) == 2
    assert not any(CANARY.encode() in each for each in kept)


def looked_around(run: Run) -> None:
    """What pi's own tool saw, and all that was told, as a journal would hold it."""
    (result,) = run.results
    assert "PALMETTE_TOKEN=" in result.text, "it did look"
    assert CANARY not in result.text
    assert CANARY.encode() not in msgspec.json.encode(run.told)
