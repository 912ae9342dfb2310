"""How programs reach the proxy from machines that share no network with it: one way for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from harness_support import running, setup_of
from proxy_support import proxy_of, proxy_system
from support.docker_daemon import IMAGE, DockerDaemon
from support.openai_server import OpenAIServer, Stream, chunk, says, sse, usage_chunk
from support.ssh_server import SshServer
from test_harness_cli import PROGRAM

from palmette.agents.harness import Settled
from palmette.agents.harnesses import cli_harness
from palmette.agents.proxy import Upstream
from palmette.agents.proxy.tunnel import TunnelBroken, reachable
from palmette.machines import Machine, machine_for

STREAMING = """
import json, os, urllib.request
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    json.dumps({"messages": [{"role": "user", "content": "hello"}], "stream": True}).encode(),
    {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
)
for line in urllib.request.urlopen(request):
    if line.startswith(b"data: {"):
        print(json.loads(line[6:])["choices"][0]["delta"]["content"], end="", flush=True)
"""


@pytest.fixture(scope="module", params=["docker", "ssh"])
def image(request: pytest.FixtureRequest) -> Iterator[str]:
    """A container without a network, and another host."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "docker":
            daemon: DockerDaemon = request.getfixturevalue("docker_daemon")
            patch.setenv("DOCKER_HOST", daemon.url)
            yield f"docker:{IMAGE}?memory=256m&pids=64"
        else:
            server: SshServer = request.getfixturevalue("ssh_server")
            yield server.image()


@contextlib.asynccontextmanager
async def machine_of(image: str) -> AsyncGenerator[Machine]:
    machine = machine_for(image, owner="test-run")
    await machine.start()
    try:
        yield machine
    finally:
        await machine.stop()


async def test_a_program_on_another_machine_has_its_model_through_the_proxy(
    image: str, openai_server: OpenAIServer
) -> None:
    """Long messages in both directions, several in a row; and nothing of the tunnel is left."""
    long = "b" * 300_000
    openai_server.plan(says("one"), says(long), says("three"))
    async with (
        proxy_system(Upstream(openai_server.base_url)) as system,
        machine_of(image) as machine,
    ):
        assert (await machine.describe()).isolation != "none"
        factory = cli_harness(proxy_of(system), ["python3", "-I", "-c", PROGRAM])
        async with running(factory, setup_of(machine)) as run:
            assert await run.asked(f"a|{long}") == Settled(answer=long)
            assert await run.asked("c") == Settled(answer="three")
        assert [len(turn.said.content) for turn in run.turns] == [3, len(long), 5]
        left = await machine.exec("ps 2>/dev/null | grep -c '[r]elay' ; true", timeout=30)
        assert left.text.strip() in {"", "0"}


async def test_a_stream_comes_through_a_tunnel_as_it_is_made(image: str, openai_server: OpenAIServer) -> None:
    go_on = asyncio.Semaphore(1)
    pieces = (sse(chunk("he")), sse(chunk("y", finish="stop"), usage_chunk(), "[DONE]"))
    openai_server.plan(Stream(pieces, go_on))
    async with (
        proxy_system(Upstream(openai_server.base_url)) as system,
        machine_of(image) as machine,
    ):
        seen: list[bytes] = []
        factory = cli_harness(proxy_of(system), "true")
        async with running(factory, setup_of(machine)) as run:
            line, port = run.harness.line, run.harness.port  # pyright: ignore
            result = await machine.exec(
                ["python3", "-I", "-c", STREAMING],
                env=line.environment(port),  # pyright: ignore
                timeout=30,
                on_output=lambda name, data: (seen.append(data), go_on.release())[0],
            )
        assert (result.text, seen[0]) == ("hey", b"he")  # the second piece was not there before the first was seen


async def test_a_tunnel_that_cannot_be_built_says_why(image: str, tmp_path: Path) -> None:
    """The machine's own words, and nothing is left."""
    async with machine_of(image) as machine:
        open_ = machine.open

        async def broken(command: object, **options: object) -> object:
            return await open_(["sh", "-c", "echo no relay today >&2; exit 1"], timeout=30)

        machine.open = broken  # pyright: ignore
        with pytest.raises(TunnelBroken, match="no relay today"):
            async with reachable(machine, 1, timeout=30):
                raise AssertionError("there is no tunnel")
