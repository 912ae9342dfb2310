"""MCP servers as tool sources: real ones, over standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from harness_support import is_running, until

from palmette.actors import Ref, StartFailed, System, deadline
from palmette.agents import BadArguments, Tool, ToolFailed
from palmette.agents.mcp import HttpServer, McpServer, StdioServer, mcp_tools, server
from palmette.supervisors import Backoff, Supervisor, child

PROGRAM = str(Path(__file__).with_name("mcp_programs.py"))
STDIO = StdioServer((sys.executable, PROGRAM, "stdio"))


@contextlib.asynccontextmanager
async def running(settings: StdioServer | HttpServer) -> AsyncGenerator[tuple[System, Ref[McpServer]]]:
    spec = child(McpServer, settings, name="mcp", backoff=Backoff(min=0.05, max=0.2), rules={"retryable": "backoff"})
    async with System.start(Supervisor.spec(children=[spec])) as system:
        yield system, system.whereis("mcp", McpServer)


async def tools_of(ref: Ref[McpServer]) -> dict[str, Tool]:
    return {each.schema.name: each for each in await mcp_tools(ref)}


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that runs."""
    number, process = start_http()
    yield number
    process.kill()
    process.wait()


def start_http(number: int | None = None) -> tuple[int, subprocess.Popen[bytes]]:
    if number is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = int(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, PROGRAM, str(number)], stderr=subprocess.DEVNULL)
    return number, process


async def answering(number: int) -> None:
    """Wait until somebody listens there."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", number)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_a_servers_tools_are_tools_like_any_others() -> None:
    """With their schemas, results, bad news and bad arguments."""
    async with running(STDIO) as (_, ref):
        tools = await tools_of(ref)
        assert tools["add"].schema.description == "Add two numbers."
        assert tools["add"].schema.parameters["required"] == ["x", "y"]
        assert await tools["add"].run('{"x": 2, "y": 3}') == "5"
        with pytest.raises(ToolFailed, match="no such thing"):
            await tools["fail"].run("")
        with pytest.raises(ToolFailed):
            await tools["add"].run('{"x": "two"}')
        with pytest.raises(BadArguments, match="JSON object"):
            await tools["add"].run("[1, 2]")
        (prefixed,) = [each for each in await mcp_tools(ref, prefix="t_") if each.schema.name == "t_add"]
        assert await prefixed.run('{"x": 1, "y": 1}') == "2"


async def test_calls_run_side_by_side_and_each_has_its_deadline() -> None:
    async with running(STDIO) as (_, ref):
        tools = await tools_of(ref)
        hanging = asyncio.create_task(_within(5.0, tools["hang"]))
        assert await tools["add"].run('{"x": 2, "y": 3}') == "5"
        with pytest.raises(ToolFailed, match="did not"):
            await _within(0.2, tools["hang"])
        assert await tools["add"].run('{"x": 2, "y": 3}') == "5"
        hanging.cancel()
        await asyncio.wait([hanging])


async def _within(seconds: float, tool: Tool) -> str:
    with deadline(seconds):
        return await tool.run("")


async def test_a_server_knows_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is what the SDK and its settings give it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    async with running(StdioServer(STDIO.command, env={"MINE": "1"})) as (_, ref):
        names = await (await tools_of(ref))["environment"].run("")
    assert "MINE" in names
    assert "OPENAI_API_KEY" not in names


async def test_a_server_that_dies_under_a_call_is_bad_news_and_started_anew() -> None:
    """The tools stay good."""
    async with running(STDIO) as (system, ref):
        tools = await tools_of(ref)
        with pytest.raises(ToolFailed, match="whether it did its work is not known"):
            await tools["die"].run("")
        await system.wait_for("mcp", McpServer)
        assert await tools["add"].run('{"x": 2, "y": 3}') == "5"
        assert ref.incarnation == 2


async def test_a_server_that_is_killed_while_nobody_calls_is_noticed_at_once() -> None:
    async with running(STDIO) as (system, ref):
        os.kill(int(await (await tools_of(ref))["pid"].run("")), signal.SIGKILL)
        await until(lambda: ref.incarnation == 2)
        (record,) = list(system.exits)
        assert "StdioServer" in str(record.reason)


async def test_ending_an_actor_ends_its_server() -> None:
    """By request, and by force."""
    async with running(STDIO) as (system, ref):
        killed = int(await (await tools_of(ref))["pid"].run(""))
        ref.kill()
        await until(lambda: ref.incarnation == 2)
        await system.wait_for("mcp", McpServer)
        stopped = int(await (await tools_of(ref))["pid"].run(""))
    assert not is_running(killed)
    assert not is_running(stopped)


async def test_a_server_that_cannot_be_started_says_why() -> None:
    """It is a failed start, with the program's name and without its arguments."""
    for command, told in ((("no-such-program", "secret"), "no-such-program"), ((sys.executable, "-c", "1"), "lost")):
        with pytest.raises(StartFailed, match=told) as failed:
            async with running(StdioServer(command)):
                pass
        assert "secret" not in str(failed.value)


async def test_a_server_over_http(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tools, and those that come later."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.3)
    await answering(port)
    async with running(HttpServer(f"http://127.0.0.1:{port}/mcp")) as (_, ref):
        tools = await tools_of(ref)
        assert await tools["add"].run('{"x": 2, "y": 3}') == "5"
        await tools["grow"].run("")
        async with asyncio.timeout(30):
            while "grown" not in tools:
                tools = await tools_of(ref)
        assert await tools["grown"].run("") == "new"


async def test_a_server_over_http_that_goes_away_is_noticed_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.3)
    number, process = start_http()
    try:
        await answering(number)
        async with running(HttpServer(f"http://127.0.0.1:{number}/mcp")) as (system, ref):
            process.kill()
            process.wait()
            await until(lambda: bool(list(system.exits)))
            assert "HttpServer" in str(next(iter(system.exits)).reason)
            _, process = start_http(number)
            await system.wait_for("mcp", McpServer)
            assert await (await tools_of(ref))["add"].run('{"x": 2, "y": 3}') == "5"
    finally:
        process.kill()
        process.wait()
