"""How agents start and end: what cannot start leaves nothing, what breaks is an exit, what is stopped is gone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from broken_harnesses import broken
from program_support import MindClient, echo, root, thinking, types, until
from support.worlds import everywhere, turns

from palmette.actors import ActorDied, DeadlineExceeded
from palmette.agents.programs import (
    FileRecorder,
    ProgramEnded,
    ProgramTimeout,
    agent,
    current_system,
    machine,
    program,
    spawn,
    wait,
)
from palmette.machines import UnknownImage


@everywhere
async def test_an_agent_that_cannot_start_raises_why_and_is_not_tried_again() -> None:
    diary: list[str] = []

    @root
    async def main() -> None:
        with pytest.raises(OSError, match="no such program: pi"):
            await agent("a", harness=broken("cannot start", diary))
        assert current_system().tree().children[0].children == ()
        await agent("a", harness=thinking(echo))

    await main()
    assert diary == ["entering", "cleaned up"]


@everywhere
async def test_an_agent_that_never_comes_up_is_given_up_after_its_time() -> None:
    diary: list[str] = []

    @root
    async def main() -> None:
        with pytest.raises(DeadlineExceeded, match=r"agent /main/a was not up within 7 s"):
            await agent("a", harness=broken("never starts", diary), start_timeout=7.0)
        assert current_system().tree().children[0].children == ()

    await main()
    assert diary == ["entering", "cleaned up"]


@everywhere
async def test_a_program_s_timeout_while_an_agent_starts_leaves_nothing() -> None:
    """Failure 4: there the harness that had been started ran on."""
    diary: list[str] = []

    @program(timeout=5.0, control=False)
    async def main() -> None:
        await agent("a", harness=broken("never starts", diary))

    with pytest.raises(ProgramTimeout):
        await main()
    assert diary == ["entering", "cleaned up"]


@everywhere
async def test_a_cancellation_while_an_agent_starts_leaves_nothing() -> None:
    diary: list[str] = []

    @root
    async def child() -> None:
        await agent("a", harness=broken("never starts", diary))

    @root
    async def main() -> None:
        handle = spawn(child)
        await turns()
        handle.cancel()
        await handle.ended()
        assert types(handle.events) == ["cancelled"]

    await main()
    assert diary == ["entering", "cleaned up"]


@pytest.mark.parametrize(("fault", "why"), [("breaks", "ConnectionResetError: the harness"), ("ends", "HarnessEnded")])
@everywhere
async def test_a_harness_that_breaks_or_ends_is_a_crash_and_is_started_again(fault: str, why: str) -> None:
    diary: list[str] = []
    faults = [fault, "none"]

    @root
    async def main() -> None:
        one = await agent("a", harness=lambda setup: broken(faults.pop(0), diary)(setup))  # pyright: ignore
        await one.send("hello")
        event = await one.events.wait_for("restarting")
        assert str(event.data).startswith(why)
        await one.events.wait_for("restarted")
        await turns()

    await main()
    assert diary == ["entering", "entered", "sent hello", "left", "entering", "entered", "sent hello", "left"]


@everywhere
async def test_a_run_whose_harness_broke_after_the_model_s_last_words_is_settled_with_them() -> None:
    diary: list[str] = []
    faults = ["breaks before it settles", "none"]

    @root
    async def main() -> str:
        one = await agent("a", harness=lambda setup: broken(faults.pop(0), diary)(setup))  # pyright: ignore
        return await one.ask("hello")

    assert await main() == "my last words"
    assert diary.count("sent hello") == 1


@everywhere
async def test_a_killed_agent_leaves_its_harness_and_comes_back() -> None:
    diary: list[str] = []

    @root
    async def main() -> None:
        one = await agent("a", harness=broken("none", diary), restart="permanent")
        current_system().whereis(one.path, object).kill("by a test")
        await one.events.wait_for("restarted")

    await main()
    assert diary == ["entering", "entered", "left", "entering", "entered", "left"]


@everywhere
async def test_a_harness_that_stops_slowly_has_its_time_and_the_program_ends_after_it() -> None:
    diary: list[str] = []

    @root
    async def main() -> None:
        await agent("a", harness=broken("stops slowly", diary))

    await main()
    assert diary[-1] == "left"


@everywhere
async def test_a_stopped_agent_has_ended_and_frees_its_name() -> None:
    @root
    async def main() -> None:
        one = await agent("a", harness=thinking(echo))
        await one.stop()
        await one.stop()
        assert types(one.events) == ["ended"]
        with pytest.raises(ProgramEnded):
            await one.send("x")
        with pytest.raises(ActorDied):
            current_system().whereis(one.path, object)
        assert (await agent("a", harness=thinking(echo))).state == "idle"

    await main()


@everywhere
async def test_agents_start_side_by_side() -> None:
    @root
    async def main() -> None:
        agents = await asyncio.gather(*(agent(f"a{n}", harness=thinking(echo)) for n in range(20)))
        answers = await asyncio.gather(*(each.ask("x") for each in agents))
        assert set(answers) == {"heard: x"}

    await main()


@everywhere
async def test_an_image_and_a_machine_are_not_given_together_and_images_are_checked_first() -> None:
    @root
    async def main() -> None:
        with pytest.raises(UnknownImage, match="nosuch"):
            await agent("a", image="nosuch:thing", harness=thinking(echo))
        with pytest.raises(UnknownImage, match="nosuch"):
            await machine("nosuch:thing")
        with pytest.raises(ValueError, match="which image"):
            await machine()
        assert current_system().tree().children[0].children == ()

    await main()


# --- on disk and on machines: in real time


@pytest.mark.worlds("real", why="files")
async def test_a_conversation_on_disk_goes_on_in_the_next_process(tmp_path: Path) -> None:
    client = MindClient(echo)

    @program(control=False, recorder=FileRecorder(tmp_path / "talks"))
    async def main(text: str) -> int:
        solver = await agent("solver", model=client, system_prompt="be brief")
        heard_before = len(solver.turns)
        await solver.ask(text)
        return heard_before

    assert await main("one") == 0
    assert await main("two") == 1
    assert [m.content for m in client.asked[-1]] == ["be brief", "one", "heard: one", "two"]
    (file,) = (tmp_path / "talks").iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"type":"accepted","text":"half a li')
    assert await main("three") == 2
    assert [m.content for m in client.asked[-1]][-2:] == ["heard: two", "three"]
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.worlds("real", why="files")
async def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "main%2fsolver.jsonl").write_text("not json\n")

    @program(control=False, recorder=FileRecorder(tmp_path))
    async def main() -> None:
        await agent("solver", harness=thinking(echo))

    with pytest.raises(ValueError, match=r"main%2fsolver.jsonl is no record"):
        await main()


@pytest.mark.worlds("real", why="a machine is a process")
async def test_an_agent_s_own_machine_ends_with_it_and_a_shared_one_stays(machines_home: Path) -> None:
    @root
    async def main() -> None:
        shared = await machine("local")
        one = await agent("one", machine=shared, harness=thinking(echo))
        two = await agent("two", image="local", harness=thinking(echo))
        with pytest.raises(ValueError, match="not both"):
            await agent("three", machine=shared, image="local")
        await until(lambda: len(os.listdir(machines_home)) == 2)
        await one.stop()
        await two.stop()
        await until(lambda: len(os.listdir(machines_home)) == 1)
        assert (await shared.exec("echo on")).text == "on\n"

    await main()


@pytest.mark.worlds("real", why="a machine is a process")
async def test_a_command_past_its_deadline_is_killed_with_all_that_it_started(machines_home: Path) -> None:
    """Failure 12: there only the shell was killed."""

    @program(control=False, image="local")
    async def main() -> None:
        one = await agent("one", harness=thinking(echo))
        result = await one.exec("sleep 600 & sleep 600; true", timeout=0.3)
        assert result.timed_out
        running = asyncio.create_task(one.exec("sleep 600; true", timeout=600))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        left = await one.exec("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep -c '^sleep 600'")
        assert left.text == "0\n"

    await main()


@everywhere
async def test_a_program_that_waits_has_its_timeout() -> None:
    @program(timeout=9.0, control=False)
    async def main() -> None:
        await agent("a", harness=thinking(echo))
        await wait()

    with pytest.raises(ProgramTimeout):
        await main()
