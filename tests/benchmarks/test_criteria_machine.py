"""Criteria that look into the agent's machine: what is the agent's miss, and what is nobody's zero."""

from __future__ import annotations

import sys

import pytest

from palmette.benchmarks import Criterion, CriterionScore, GraderData, Task, Transcript
from palmette.benchmarks.criteria import CommandExit, FileCheck, Program, UnitTests
from palmette.benchmarks.errors import EvaluatorError
from palmette.machines import CommandNotStarted, Limits, LocalMachine, MachineLost

TESTS = "assert double(2) == 4"
GOOD = "def double(x):\n    return 2 * x\n"


async def judged(
    criterion: Criterion, machine: LocalMachine | None, answer: str | None = "x", tests: str = TESTS
) -> CriterionScore:
    task = Task(id="t", prompt="p", grader=GraderData(tests=tests))
    return await criterion.evaluate(task, Transcript(answer=answer), machine)


def unit_tests(**changes: float | Limits | str) -> UnitTests:
    criterion = UnitTests(interpreter=sys.executable)
    for name, value in changes.items():
        setattr(criterion, name, value)
    return criterion


async def test_a_right_program_passes_and_a_wrong_one_says_why(machine: LocalMachine) -> None:
    assert (await judged(unit_tests(), machine, GOOD)).passed
    wrong = await judged(unit_tests(), machine, GOOD.replace("2 *", "3 *"))
    assert (wrong.score, wrong.reason) == (0.0, "exit code 1: 'AssertionError'")


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "exit()"])
async def test_leaving_early_with_code_0_is_no_pass(machine: LocalMachine, leave: str) -> None:
    for program in (f"{GOOD}{leave}\n", f"def double(x):\n    {leave}\n"):
        got = await judged(unit_tests(), machine, program)
        assert got.score == 0.0
        assert got.reason.startswith("ended before the last test") or "exit code" in got.reason


async def test_what_the_program_prints_or_leaves_running_does_not_disturb_the_verdict(machine: LocalMachine) -> None:
    noisy = GOOD + "print('x' * 300_000)\nimport sys\nsys.stdout.write('no newline')\n"
    assert (await judged(unit_tests(), machine, noisy)).passed
    thread = GOOD + "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    assert (await judged(unit_tests(), machine, thread)).passed
    hook = GOOD + "import atexit, os\natexit.register(os._exit, 3)\n"
    assert (await judged(unit_tests(), machine, hook)).passed


async def test_a_demonstration_under_the_main_guard_does_not_run(machine: LocalMachine) -> None:
    assert (await judged(unit_tests(), machine, GOOD + "if __name__ == '__main__':\n    input()\n")).passed


async def test_a_program_that_does_not_end_is_killed_and_fails(machine: LocalMachine) -> None:
    got = await judged(unit_tests(timeout=2.0), machine, "while True: pass")
    assert (got.score, got.reason) == (0.0, "killed after 2 s")
    burnt = await judged(unit_tests(limits=Limits(cpu=1)), machine, "while True: pass")
    assert burnt.score == 0.0
    assert "signal" in burnt.reason


async def test_a_program_that_takes_too_much_memory_fails(machine: LocalMachine) -> None:
    got = await judged(unit_tests(limits=Limits(memory=256 << 20)), machine, GOOD + "x = bytearray(1 << 30)\n")
    assert (got.score, got.reason) == (0.0, "exit code 1: 'MemoryError'")


async def test_files_that_the_agent_left_shadow_no_module(machine: LocalMachine) -> None:
    await machine.put("random.py", b"raise RuntimeError('mine')")
    await machine.put("json.py", b"raise RuntimeError('mine')")
    assert (await judged(unit_tests(), machine, "import random, json\n" + GOOD)).passed
    assert await machine.list() == ["json.py", "random.py"]  # and the judge left nothing of its own


@pytest.mark.parametrize("answer", [None, "", " \n"])
async def test_no_answer_fails_without_being_run(answer: str | None) -> None:
    got = await judged(unit_tests(), None, answer, tests="")
    assert (got.score, got.reason) == (0.0, "no answer")


@pytest.mark.parametrize("answer", ["def f(:", "\0", "\ud800", "(" * 5000])
async def test_an_answer_that_is_no_python_fails(machine: LocalMachine, answer: str) -> None:
    assert (await judged(unit_tests(), machine, answer)).score == 0.0


async def test_the_first_reading_that_compiles_is_run(machine: LocalMachine) -> None:
    criterion = unit_tests()
    criterion.build = lambda task, answer: Program(sources=("def (", GOOD, "raise ValueError"), tests=TESTS)
    assert (await judged(criterion, machine)).passed


async def test_an_interpreter_that_cannot_start_is_no_zero(machine: LocalMachine) -> None:
    with pytest.raises(EvaluatorError, match="did not start the tests of t"):
        await judged(unit_tests(interpreter="false"), machine, GOOD)
    with pytest.raises(EvaluatorError, match="did not start the tests of t"):
        await judged(unit_tests(limits=Limits(memory=4 << 20)), machine, GOOD)
    with pytest.raises(CommandNotStarted, match="no-such-python"):
        await judged(unit_tests(interpreter="no-such-python"), machine, GOOD)


async def test_a_lost_machine_is_no_zero(machine: LocalMachine) -> None:
    await machine.stop()
    for criterion in (unit_tests(), CommandExit(command="true"), FileCheck(path="a")):
        with pytest.raises(MachineLost):
            await judged(criterion, machine, GOOD)


async def test_a_criterion_that_needs_a_machine_says_so_when_there_is_none() -> None:
    for criterion in (unit_tests(), CommandExit(command="true"), FileCheck(path="a")):
        with pytest.raises(EvaluatorError, match="needs a machine"):
            await judged(criterion, None, GOOD)


async def test_a_command_passes_by_its_exit_code(machine: LocalMachine) -> None:
    assert (await judged(CommandExit(command="exit 0"), machine)).passed
    assert (await judged(CommandExit(command="exit 3", code=3), machine)).passed
    failed = await judged(CommandExit(command=["sh", "-c", "echo broken >&2; exit 2"]), machine)
    assert (failed.score, failed.reason) == (0.0, "exit code 2: 'broken'")
    slow = await judged(CommandExit(command="sleep 600", timeout=0.2), machine)
    assert (slow.score, slow.reason) == (0.0, "killed after 0.2 s")


async def test_a_file_is_checked_for_being_there_its_content_and_a_pattern(machine: LocalMachine) -> None:
    await machine.put("out/a.txt", b"code 4\n")
    path = "out/a.txt"
    assert (await judged(FileCheck(path=path), machine)).passed
    assert (await judged(FileCheck(path=path, content=b"code 4\n", pattern=r"code \d"), machine)).passed
    assert not (await judged(FileCheck(path=path, content=b"code 5\n"), machine)).passed
    assert not (await judged(FileCheck(path=path, pattern="goto"), machine)).passed


async def test_whatever_the_agent_made_of_the_path_is_its_miss(machine: LocalMachine) -> None:
    await machine.put("dir/big.txt", b"x" * 100)
    await machine.exec("ln -s /etc/passwd out && mkfifo pipe", timeout=30)
    for path in ("gone", "gone/deeper", "dir", "dir/big.txt/x", "out", "pipe"):
        got = await judged(FileCheck(path=path), machine)
        assert got.score == 0.0, path
        assert got.reason.startswith(path)
    assert "larger than 10" in (await judged(FileCheck(path="dir/big.txt", max_bytes=10), machine)).reason
