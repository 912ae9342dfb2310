"""A pi on a local machine, and a model that says what was planned, streamed as pi wants it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import psutil
import pytest
from harness_support import Run, local_machine, running, setup_of
from proxy_support import proxy_of, proxy_system
from support.openai_server import Http, OpenAIServer, chunk, events, usage_chunk
from support.pi_agent import pi_command as pi_command

from palmette.actors import Ref
from palmette.agents.harness import HarnessFactory, ToolEnded
from palmette.agents.harnesses import pi_harness
from palmette.agents.proxy import Proxy, Upstream
from palmette.agents.toolbox import Toolbox
from palmette.agents.transcript import Turn
from palmette.machines import LocalMachine


def text(words: str) -> Http:
    """The model says something."""
    return events(chunk(words), chunk(finish="stop"), usage_chunk())


def calls(name: str, arguments: object, *, number: int = 0) -> Http:
    """The model calls a tool."""
    function = {"name": name, "arguments": msgspec.json.encode(arguments).decode()}
    wanted = [{"index": 0, "id": f"call_{number}", "type": "function", "function": function}]
    return events(chunk(calls=wanted), chunk(finish="tool_calls"), usage_chunk())


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where machines go in this test."""
    monkeypatch.setenv("PALMETTE_MACHINES", str(tmp_path / "machines"))


@pytest.fixture
async def proxy(openai_server: OpenAIServer) -> AsyncIterator[Ref[Proxy]]:
    async with proxy_system(Upstream(openai_server.base_url)) as system:
        yield proxy_of(system)


@pytest.fixture
async def machine(machines: None) -> AsyncIterator[LocalMachine]:
    async with local_machine() as one:
        yield one


@pytest.fixture
def factory(proxy: Ref[Proxy], pi_command: Sequence[str]) -> HarnessFactory:
    return pi_harness(proxy, command=pi_command, model="fake-1")


def pi_on(
    factory: HarnessFactory,
    machine: LocalMachine,
    toolbox: Toolbox | None = None,
    *,
    turns: tuple[Turn, ...] = (),
    results: tuple[ToolEnded, ...] = (),
    system_prompt: str | None = None,
    may_go_on: asyncio.Event | None = None,
) -> AbstractAsyncContextManager[Run]:
    """A pi that runs for the length of a block."""
    setup = setup_of(
        machine, toolbox=toolbox, turns=turns, results=results, system_prompt=system_prompt, may_go_on=may_go_on
    )
    return running(factory, setup)


@pytest.fixture
def pi(pi_command: Sequence[str]) -> str:
    """The harness of programs, by its name."""
    return f"pi:{shlex.join(pi_command)}"


def pi_processes() -> list[psutil.Process]:
    """Those that this test has started, by their program: pi gives itself a title in the place of its arguments."""
    node = os.path.realpath(shutil.which("node") or "")
    return [one for one in psutil.Process().children(recursive=True) if one.exe() == node]


def pi_process() -> psutil.Process:
    (found,) = pi_processes()
    return found
