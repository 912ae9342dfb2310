"""Programs in processes of their own: the same words, and a kill that is real."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import process_programs as there
import pytest
from process_programs import Point
from program_support import Says, calling, results, root, thinking, told, types

from palmette.actors import Refused
from palmette.agents import Message
from palmette.agents.programs import ProgramFailed, ProgramTimeout, agent, spawn

pytestmark = pytest.mark.worlds("real", why="processes")


async def test_a_program_in_a_process_takes_arguments_tells_and_returns() -> None:
    @root
    async def main() -> None:
        handle = spawn(there.flip.options(isolation="process"), Point(1, 2), times=3)
        assert await handle.result() == Point(2, 1)
        assert told(handle.events)[:3] == [("flipped", 0), ("flipped", 1), ("flipped", 2)]
        assert types(handle.events)[3:] == ["done"]
        assert await there.tells_pid.options(isolation="process")() != os.getpid()

    await main()


async def test_failures_come_from_another_process_with_their_words() -> None:
    @root
    async def main() -> None:
        with pytest.raises(ProgramFailed, match="ValueError: boom"):
            await there.breaks.options(isolation="process")("boom")
        with pytest.raises(ProgramFailed, match=r"^too hard$"):
            await there.gives_up.options(isolation="process")()
        with pytest.raises(ProgramTimeout, match=r"did not finish within 0\.3 s"):
            await there.lasts.options(isolation="process", timeout=0.3)()

    await main()


async def test_endpoints_are_called_and_attached_across_processes() -> None:
    heard: list[str] = []

    def mind(conversation: Sequence[Message]) -> Says:
        if conversation[-1].role == "user":
            return calling(("move", {"point": {"x": 1, "y": 1}, "by": 2}))
        heard.extend(results(conversation))
        return "moved"

    @root
    async def main() -> None:
        handle = spawn(there.serves.options(isolation="process"))
        assert await handle.call("move", point=Point(1, 2), by=3) == {"x": 4, "y": 2}
        with pytest.raises(Refused, match="bad arguments for move"):
            await handle.call("move", point="nowhere", by=3)
        mover = await agent("mover", harness=thinking(mind))
        await handle.attach(mover)
        assert mover.toolbox.schemas[0].description == "Move a point to the right."
        assert await mover.ask("go") == "moved"
        assert types(handle.events) == ["moved", "moved"]

    await main()
    assert heard == ['{"x":3,"y":1}']


async def test_a_killed_process_is_an_exit_and_a_restart_policy_starts_another() -> None:
    @root
    async def main() -> None:
        handle = spawn(there.lasts.options(isolation="process", restart="permanent"))
        first = (await handle.events.wait_for("begun")).data
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        await handle.events.wait_for("restarting")
        second = (await handle.events.wait_for("begun", where=lambda event: event.data != first)).data
        assert second != first
        assert types(handle.events) == ["begun", "restarting", "begun"]

    await main()


async def test_what_a_program_in_a_process_starts_is_below_it() -> None:
    @root
    async def main() -> list[int]:
        return await there.family.options(isolation="process")()

    own, nested, spawned = await main()
    assert own == nested
    assert len({os.getpid(), own, spawned}) == 3


async def test_a_program_that_no_other_process_can_import_says_so() -> None:
    @root
    async def local() -> None:
        pass

    @root
    async def main() -> None:
        with pytest.raises(ProgramFailed, match="define it at the top of a module"):
            await spawn(local.options(isolation="process")).result()

    await main()
