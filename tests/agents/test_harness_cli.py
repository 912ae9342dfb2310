"""Any program that speaks OpenAI as a harness, on machines of several kinds."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from harness_support import heard_from_users, is_running, local_machine, running, setup_of, written
from proxy_support import proxy_of, proxy_system
from support.openai_server import Hang, OpenAIServer, says, status

from palmette.actors import Ref
from palmette.agents import ConfigurationError, ModelRefused, UnknownAgent
from palmette.agents.harness import HarnessFactory, Settled
from palmette.agents.harnesses import HarnessDied, cli_harness, harness_named
from palmette.agents.proxy import Proxy, Upstream
from palmette.machines import LocalMachine

PROGRAM = """
import json, os, sys, urllib.request
url, key, text = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"], sys.stdin.read()
messages = []
for part in text.split("|"):
    messages.append({"role": "user", "content": part})
    request = urllib.request.Request(
        url + "/chat/completions",
        json.dumps({"model": os.environ.get("OPENAI_MODEL", "m"), "messages": messages}).encode(),
        {"authorization": "Bearer " + key, "content-type": "application/json"},
    )
    said = json.load(urllib.request.urlopen(request))["choices"][0]["message"]
    messages.append(said)
print(said["content"])
"""
"""A small agent: asks the model about each part of its input in turn, and prints the last answer."""


@pytest.fixture
async def proxy(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ref[Proxy]]:
    monkeypatch.setenv("PALMETTE_MACHINES", str(tmp_path / "machines"))
    async with proxy_system(Upstream(openai_server.base_url)) as system:
        yield proxy_of(system)


@pytest.fixture
async def machine(proxy: Ref[Proxy]) -> AsyncIterator[LocalMachine]:
    async with local_machine() as one:
        yield one


@pytest.fixture
def factory(proxy: Ref[Proxy]) -> HarnessFactory:
    return cli_harness(proxy, _python(PROGRAM))


def _python(program: str) -> Sequence[str]:
    return [sys.executable, "-I", "-c", program]


async def test_a_program_answers_and_its_calls_are_turns(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """A second message is a second run."""
    openai_server.plan(says("one"), says("two"), says("three"))
    async with running(factory, setup_of(machine)) as run:
        assert await run.asked("a|b") == Settled(answer="two")
        assert await run.asked("c") == Settled(answer="three")
    assert run.order == ["turn", "turn", "settled", "turn", "settled"]
    assert [turn.said.content for turn in run.turns] == ["one", "two", "three"]
    assert [message.content for message in run.turns[1].heard] == ["b"]


async def test_a_message_can_be_an_argument_and_a_program_may_ignore_its_input(
    proxy: Ref[Proxy], machine: LocalMachine
) -> None:
    factory = cli_harness(proxy, ["echo", "you said: {message}"])
    async with running(factory, setup_of(machine)) as run:
        assert await run.asked("hello; $HOME") == Settled(answer="you said: hello; $HOME")


async def test_what_was_sent_counts_as_heard_and_nothing_else(
    proxy: Ref[Proxy], machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    """The program makes up messages of its own."""
    openai_server.plan(says("one"), says("two"))
    factory = cli_harness(proxy, _python(PROGRAM))
    async with running(factory, setup_of(machine)) as run:
        await run.asked("a|made up")
    assert heard_from_users(run.turns) == []  # it sent neither as it was given
    openai_server.plan(says("one"))
    async with running(factory, setup_of(machine)) as run:
        await run.asked("as it is")
    assert heard_from_users(run.turns) == ["as it is"]


async def test_a_program_that_fails_is_a_crash_with_its_last_words(proxy: Ref[Proxy], machine: LocalMachine) -> None:
    factory = cli_harness(proxy, "sh -c 'echo cannot do that >&2; exit 5'")
    async with running(factory, setup_of(machine)) as run:
        with pytest.raises(HarnessDied, match="'sh' ended with exit code 5: cannot do that"):
            await run.asked("go")


async def test_a_program_that_fails_since_its_model_did_is_the_models_error(
    factory: HarnessFactory, machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    openai_server.plan(status(401, "no such key"))
    async with running(factory, setup_of(machine)) as run:
        with pytest.raises(ModelRefused):
            await run.asked("go")


async def test_an_interrupted_program_is_killed_with_all_that_it_started(
    proxy: Ref[Proxy], machine: LocalMachine
) -> None:
    factory = cli_harness(proxy, ["sh", "-c", "setsid sleep 1000 & echo $! > stays; wait"])
    async with running(factory, setup_of(machine)) as run:
        await run.harness.send("go")
        child = int(await written(machine, "stays"))
        await run.harness.interrupt()
        assert (await run.settled()).stop == "interrupted"
        assert not is_running(child)


async def test_a_run_that_takes_too_long_is_truncated(
    proxy: Ref[Proxy], machine: LocalMachine, openai_server: OpenAIServer
) -> None:
    openai_server.plan(Hang())
    factory = cli_harness(proxy, _python(PROGRAM), seconds=1.0)
    async with running(factory, setup_of(machine)) as run:
        assert await run.asked("go") == Settled(stop="truncated", reason="seconds: 1")


async def test_leaving_in_the_middle_of_a_run_leaves_nothing(proxy: Ref[Proxy], machine: LocalMachine) -> None:
    factory = cli_harness(proxy, ["sh", "-c", "setsid sleep 1000 & echo $! > stays; wait"])
    async with running(factory, setup_of(machine)) as run:
        await run.harness.send("go")
        child = int(await written(machine, "stays"))
        await asyncio.sleep(0)
    assert not is_running(child)


async def test_a_harness_has_a_name_and_needs_a_command_and_a_machine(proxy: Ref[Proxy], machine: LocalMachine) -> None:
    with pytest.raises(ConfigurationError, match="needs a command"):
        harness_named("cli:", proxy)
    with pytest.raises(UnknownAgent, match="no harness 'py'; there are pi, pi:COMMAND, cli:COMMAND"):
        harness_named("py", proxy)
    setup = setup_of(machine)
    for name in ("pi", "cli:echo {message}"):
        with pytest.raises(ConfigurationError, match="'worker' needs a machine"):
            harness_named(name, proxy)(dataclasses.replace(setup, machine=None))
    async with running(harness_named("cli:echo {message}", proxy), setup) as run:
        assert await run.asked("hello there") == Settled(answer="hello there")
