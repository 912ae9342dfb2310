"""What else the peer's tests pin and has no better place: starts that block, machines that are undone, usage, logs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from broken_harnesses import broken
from program_support import MindClient, echo, root, thinking, told, types, until
from support.worlds import everywhere, turns

from palmette.agents import Completion, Message, ToolCall, ToolEnded, Turn, Usage
from palmette.agents.programs import (
    Accepted,
    FileRecorder,
    MemoryRecorder,
    Recorder,
    Replied,
    Resulted,
    agent,
    current_system,
    emit,
    machine,
    program,
    spawn,
)
from palmette.agents.programs.log import Line, Log
from palmette.machines import RemoteMachine

ENTRIES = (
    Accepted("hello"),
    Replied(
        Turn(index=0, heard=(Message(role="user", content="hello"),), said=Message(role="assistant", content="yes"))
    ),
    Resulted(ToolEnded(call=ToolCall(id="1", name="look", arguments="{}"), text="a tree")),
)


@everywhere
async def test_agent_returns_only_when_its_harness_is_up() -> None:
    gate = asyncio.Event()
    diary: list[str] = []

    @root
    async def main() -> None:
        def slow(setup: object) -> object:
            harness = broken("none", diary)(setup)  # pyright: ignore
            enter = harness.__aenter__

            async def wait_and_enter() -> object:
                await gate.wait()
                return await enter()

            harness.__aenter__ = wait_and_enter  # pyright: ignore
            return harness

        starting = asyncio.create_task(agent("a", harness=slow))  # pyright: ignore
        await turns()
        assert not starting.done()
        gate.set()
        assert (await starting).state == "idle"

    await main()


@everywhere
async def test_the_model_s_usage_stands_in_the_turn_events() -> None:
    spent = Usage(input_tokens=7, output_tokens=3, cost=0.5)
    client = MindClient(lambda talk: Completion(message=Message(role="assistant", content="x"), usage=spent))

    @root
    async def main() -> None:
        solver = await agent("solver", model=client)
        await solver.ask("go")
        turn = (await solver.events.wait_for("turn")).data
        assert isinstance(turn, Turn)
        assert turn.usage == spent

    await main()


@everywhere
async def test_a_harness_is_told_the_model_s_name_and_the_system_prompt() -> None:
    seen: list[tuple[str, str | None, str]] = []

    @root
    async def main() -> None:
        def note(setup: object) -> object:
            seen.append((setup.model, setup.system_prompt, setup.name))  # pyright: ignore
            return thinking(echo)(setup)  # pyright: ignore

        await agent("solver", model="acme/large", system_prompt="be kind", harness=note)  # pyright: ignore

    await main()
    assert seen == [("acme/large", "be kind", "solver")]


@everywhere
async def test_agents_and_programs_are_on_the_log_while_they_live() -> None:
    @root
    async def child() -> None:
        await agent("a", harness=thinking(echo))
        emit("ready")
        await asyncio.Event().wait()

    @root
    async def main() -> None:
        handle = spawn(child)
        await handle.events.wait_for("ready")
        log = handle._record.log  # pyright: ignore[reportPrivateUsage]
        assert sorted(log.programs) == ["/main", "/main/child-1"]
        assert list(log.agents) == ["/main/child-1/a"]
        handle.cancel()
        await handle.ended()
        assert (list(log.programs), list(log.agents)) == (["/main"], [])
        lines = [data for _, data in told(log.lines)]
        assert [(line.who, line.type) for line in lines if isinstance(line, Line)] == [
            ("/main/child-1", "ready"),
            ("/main/child-1/a", "ended"),
            ("/main/child-1", "cancelled"),
        ]

    await main()


def test_what_is_copied_from_another_stream_is_logged_once() -> None:
    log = Log()
    child, parent = log.stream("/child"), log.stream("/parent")
    child.copy_to(parent, source="child")
    child.append("news", "x" * 1000)
    ((_, line),) = told(log.lines)
    assert isinstance(line, Line)
    assert (line.who, line.type, len(line.text)) == ("/child", "news", 400)
    assert types(parent) == ["news"]


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.worlds("real", why="files")
async def test_a_recorder_gives_back_what_it_was_given_agent_by_agent(kind: str, tmp_path: Path) -> None:
    recorder: Recorder = MemoryRecorder() if kind == "memory" else FileRecorder(tmp_path)
    for entry in ENTRIES:
        await recorder.append("/main/a", entry)
    await recorder.append("/main/a.b", ENTRIES[0])
    assert tuple(await recorder.load("/main/a")) == ENTRIES
    assert tuple(await recorder.load("/main/a.b")) == ENTRIES[:1]
    assert tuple(await recorder.load("/main/nobody")) == ()


def test_entries_round_trip_as_json() -> None:
    for entry in ENTRIES:
        assert msgspec.json.decode(msgspec.json.encode(entry), type=type(entry)) == entry


# --- on real machines


@pytest.mark.worlds("real", why="a machine is a process")
async def test_the_machine_of_an_agent_that_cannot_start_is_undone(machines_home: Path) -> None:
    diary: list[str] = []

    @program(control=False, image="local")
    async def main() -> None:
        with pytest.raises(OSError, match="no such program"):
            await agent("a", harness=broken("cannot start", diary))
        await until(lambda: not os.listdir(machines_home))
        assert current_system().tree().children[0].children == ()

    await main()
    assert diary


@pytest.mark.worlds("real", why="a machine is a process")
async def test_a_machine_that_is_lost_is_replaced_and_its_holder_goes_on(machines_home: Path) -> None:
    @root
    async def main() -> None:
        shared = await machine("local")
        assert isinstance(shared, RemoteMachine)
        await shared.put("here", b"1")
        current_system().whereis(shared.id, object).kill("by a test")
        await current_system().wait_for(shared.id, object)
        assert (await shared.exec("ls")).text == ""

    await main()
