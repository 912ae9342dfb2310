"""How a program ends, and that everybody learns of it: results, failures, time-outs, cancellations."""

from __future__ import annotations

import asyncio

import pytest
from program_support import for_ever, root, told, types
from support.worlds import everywhere, took, turns

from palmette.actors import ActorDied, Crashed, DeadlineExceeded, System
from palmette.agents.programs import (
    Handle,
    NoProgram,
    ProgramFailed,
    ProgramTimeout,
    current_system,
    done,
    emit,
    expose,
    fail,
    program,
    spawn,
    wait,
)


@root
async def waits() -> object:
    @expose
    async def finish(word: str) -> str:
        done(word)
        return "ok"

    @expose
    async def give_up(why: str) -> str:
        fail(why)
        return "ok"

    return await wait()


@root
async def says(word: str) -> str:
    return word


@root
async def breaks(text: str) -> None:
    raise ValueError(text)


@root
async def lasts() -> None:
    await for_ever()


@everywhere
async def test_done_from_an_endpoint_ends_the_wait_and_the_endpoint_answers() -> None:
    @root
    async def main() -> tuple[object, object]:
        handle = spawn(waits)
        answer = await handle.call("finish", word="hello")
        return answer, await handle.result()

    assert await main() == ("ok", "hello")


@everywhere
async def test_fail_from_an_endpoint_is_what_the_wait_raises() -> None:
    @root
    async def main() -> None:
        handle = spawn(waits)
        assert await handle.call("give_up", why="bad input") == "ok"
        await handle.result()

    with pytest.raises(ProgramFailed, match="bad input") as caught:
        await main()
    assert caught.value.reason == "bad input"


@everywhere
async def test_when_done_is_said_twice_the_first_word_counts() -> None:
    @root
    async def main() -> object:
        done("first")
        done("second")
        fail("third")
        return await wait()

    assert await main() == "first"


@everywhere
async def test_fail_counts_although_nobody_waits_for_it() -> None:
    """Failure 11: there the program completed with what its body returned."""

    @root
    async def careless() -> str:
        fail("nope")
        return "all is well"

    @root
    async def main() -> list[tuple[str, object]]:
        handle = spawn(careless)
        with pytest.raises(ProgramFailed, match="nope"):
            await handle.result()
        return told(handle.events)

    assert await main() == [("failed", "nope")]


@everywhere
async def test_done_counts_although_nobody_waits_for_it() -> None:
    @root
    async def main() -> str:
        done("the word")
        return "the body's"

    assert await main() == "the word"


@everywhere
async def test_a_crash_after_done_is_a_failure() -> None:
    @root
    async def main() -> None:
        done("well")
        raise RuntimeError("after all, not")

    with pytest.raises(RuntimeError, match="after all"):
        await main()


@everywhere
async def test_a_root_program_makes_its_system_and_closes_it() -> None:
    systems: list[System] = []

    @root
    async def main() -> str:
        systems.append(current_system())
        assert systems[0].whereis("/main", object).is_alive()
        return "value"

    assert await main() == "value"
    with pytest.raises(ActorDied):
        systems[0].whereis("/main", object)
    with pytest.raises(NoProgram):
        current_system()


@everywhere
async def test_a_program_called_in_another_is_its_child_in_the_same_system() -> None:
    @root
    async def inner() -> tuple[System, str]:
        (node,) = [each for each in current_system().tree().children if each.name == "main"]
        return current_system(), node.children[0].name

    @root
    async def main() -> None:
        system, name = await inner()
        assert system is current_system()
        assert name == "inner-1"

    await main()


@everywhere
async def test_gather_runs_called_programs_side_by_side() -> None:
    @root
    async def slow(word: str) -> str:
        await asyncio.sleep(5.0)
        return word

    @root
    async def main() -> tuple[str, str, str]:
        first, second, third = await asyncio.gather(slow("a"), slow("b"), slow("c"))
        return first, second, third

    assert await main() == ("a", "b", "c")
    assert took(5.0)


@everywhere
async def test_the_last_event_of_a_program_that_is_done_holds_its_result() -> None:
    @root
    async def main() -> None:
        handle = spawn(says, "x")
        assert await handle.result() == "x"
        assert told(handle.events) == [("done", "x")]
        assert handle.state == "done"

    await main()


@everywhere
async def test_an_error_in_a_spawned_program_is_an_event_and_its_parent_lives_on() -> None:
    @root
    async def main() -> str:
        handle = spawn(breaks, "boom")
        await handle.ended()
        assert told(handle.events) == [("failed", "boom")]
        with pytest.raises(ValueError, match="boom"):
            await handle.result()
        return "alive"

    assert await main() == "alive"


@everywhere
async def test_a_failure_without_words_is_told_by_its_class() -> None:
    @root
    async def main() -> None:
        handle = spawn(breaks, "")
        await handle.ended()
        assert told(handle.events) == [("failed", "ValueError")]

    await main()


@everywhere
async def test_a_program_that_takes_too_long_cleans_up_and_has_failed() -> None:
    log: list[str] = []

    @program(timeout=5.0, control=False)
    async def slow() -> None:
        try:
            await for_ever()
        finally:
            log.append("cleaned")

    @root
    async def main() -> None:
        handle = spawn(slow)
        with pytest.raises(ProgramTimeout, match=r"did not finish within 5 s"):
            await handle.result()
        assert types(handle.events) == ["failed"]

    await main()
    assert took(5.0)
    assert log == ["cleaned"]


@everywhere
async def test_a_time_out_of_the_body_s_own_is_no_program_timeout() -> None:
    @program(timeout=50.0, control=False)
    async def main() -> None:
        async with asyncio.timeout(1.0):
            await for_ever()

    with pytest.raises(TimeoutError) as caught:
        await main()
    assert not isinstance(caught.value, ProgramTimeout)


@everywhere
async def test_result_has_a_deadline_and_the_program_goes_on() -> None:
    @root
    async def main() -> None:
        handle = spawn(lasts)
        with pytest.raises(DeadlineExceeded, match="has not ended within 2 s; it is running"):
            await handle.result(2.0)
        assert handle.state == "running"

    await main()


@everywhere
async def test_a_killed_program_is_a_failure_with_its_reason() -> None:
    @root
    async def main() -> None:
        handle: Handle[None] = spawn(lasts)
        await turns()
        current_system().whereis(handle.path, object).kill("by a test")
        with pytest.raises(ProgramFailed, match="by a test") as caught:
            await handle.result()
        assert not isinstance(caught.value.exit, Crashed)

    await main()


@everywhere
async def test_ambient_functions_without_a_program_say_what_to_do() -> None:
    for call in (lambda: emit("x"), lambda: done(), lambda: fail("x"), lambda: spawn(says, "x"), current_system):
        with pytest.raises(NoProgram, match="@program"):
            call()


@everywhere
async def test_code_that_outlives_its_program_is_told_so() -> None:
    late: list[asyncio.Task[None]] = []

    async def straggler() -> None:
        await asyncio.sleep(5.0)
        emit("too late")

    @root
    async def main() -> None:
        late.append(asyncio.create_task(straggler()))

    await main()
    with pytest.raises(NoProgram, match="has ended"):
        await late[0]


def test_only_async_functions_are_programs() -> None:
    with pytest.raises(TypeError, match="async def"):
        program(lambda: 1)  # pyright: ignore


@everywhere
async def test_only_programs_are_spawned_and_with_arguments_that_fit() -> None:
    @root
    async def main() -> None:
        with pytest.raises(TypeError, match="put @program above"):
            spawn(for_ever)  # pyright: ignore
        with pytest.raises(TypeError, match=r"says\(word: .*missing"):
            spawn(says, words="x")  # pyright: ignore

    await main()
