"""HumanEval: the reference solves all of it, silence none of it, and an answer may come in several shapes."""

from __future__ import annotations

import asyncio
import gzip
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from palmette.benchmarks import Task, Transcript
from palmette.benchmarks.errors import BadData, UnknownRecording
from palmette.benchmarks.suites.humaneval import HumanEval, readings
from palmette.machines import LocalMachine

STUB = 'import math\n\n\ndef helper():\n    return 1\n\n\ndef f(x):\n    """Doubles.\n    """\n'
BODY = "    y = helper() * x\n    return y + math.floor(x)\n"


async def rewards(
    benchmark: HumanEval, root: Path, answer: Callable[[Task], str | None], *, every: int = 1
) -> list[float]:
    """Each task in a machine of its own, as in a run; two at a time."""
    turn = asyncio.Semaphore(2)

    async def one(task: Task) -> float:
        async with turn, LocalMachine("test", root=root) as machine:
            scored = await benchmark.rubric(task).judge(task, Transcript(answer=answer(task)), machine)
            return scored.reward

    return list(await asyncio.gather(*(one(task) for task in benchmark.tasks()[::every])))


@pytest.mark.slow
async def test_the_reference_solves_them(data_of: Callable[[str], Path], tmp_path: Path) -> None:
    """All 164 of them do in the command's tests."""
    benchmark = HumanEval(data_of("humaneval"))
    got = await rewards(benchmark, tmp_path, lambda task: benchmark.replies(task.public(), "reference")[0], every=4)
    assert got == [1.0] * 41


async def test_silence_solves_none(data_of: Callable[[str], Path], tmp_path: Path) -> None:
    benchmark = HumanEval(data_of("humaneval"))
    assert await rewards(benchmark, tmp_path, lambda task: None) == [0.0] * 164
    assert await rewards(benchmark, tmp_path, lambda task: "\n  ") == [0.0] * 164


async def test_leaving_with_code_0_solves_none(data_of: Callable[[str], Path], tmp_path: Path) -> None:
    benchmark = HumanEval(data_of("humaneval"))
    left = "    import os\n    os._exit(0)\n"
    assert await rewards(benchmark, tmp_path, lambda task: left, every=12) == [0.0] * 14


SHAPES = {
    "the bare completion": BODY,
    "its first line stripped of the indentation": BODY.lstrip(),
    "the completion moved to the left": textwrap.dedent(BODY),
    "the whole function": f"def f(x):\n{BODY}",
    "the whole function with its own imports": f"import math\ndef f(x: int) -> int:\n{BODY}",
    "a fenced function in prose": f"Sure!\n\n```python\n{STUB}{BODY}```\nDone.",
    "a fenced completion": f"```\n{BODY}```",
    "a fence that never closes": f"```python\ndef f(x):\n{BODY}",
    "an example in a second fence": f"```python\ndef f(x):\n{BODY}```\nUse it:\n```python\nprint(f(1))\n```",
    "a corrected second attempt": f"```python\ndef f(x):\n    return 0\n```\nBetter:\n```python\ndef f(x):\n{BODY}```",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_understood_in_many_shapes(shape: str) -> None:
    def compiles(source: str) -> bool:
        try:
            compile(source, "answer", "exec")
        except SyntaxError:
            return False
        return True

    source = next(source for source in readings(SHAPES[shape], STUB, "f") if compiles(source))
    namespace: dict[str, Callable[[int], int]] = {}
    exec(source, namespace)
    assert namespace["f"](21) == 42


@pytest.mark.parametrize("answer", ["", "I cannot do that.", "```\n```", "def g(x):\n    return 2 * x\n", "\0"])
async def test_an_answer_that_is_no_solution_is_a_zero(
    data_of: Callable[[str], Path], machine: LocalMachine, answer: str
) -> None:
    benchmark = HumanEval(data_of("humaneval"))
    task = benchmark.tasks()[0]
    assert (await benchmark.rubric(task).judge(task, Transcript(answer=answer), machine)).reward == 0.0


def test_the_public_half_of_a_task_holds_neither_solution_nor_tests(data_of: Callable[[str], Path]) -> None:
    for task in HumanEval(data_of("humaneval")).tasks():
        public = repr(task.public())
        assert "def check(" in task.grader.tests
        assert "def check(" not in public
        assert repr(task.grader.answer)[1:-1] not in public


def test_there_is_no_recording_but_the_reference(data_of: Callable[[str], Path]) -> None:
    benchmark = HumanEval(data_of("humaneval"))
    with pytest.raises(UnknownRecording, match="There is: reference"):
        benchmark.replies(benchmark.tasks()[0], "gpt")


GOOD = {"task_id": "H/0", "prompt": STUB, "entry_point": "f", "canonical_solution": BODY, "test": "def check(c): pass"}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"entry_point": "g"}, "does not define its entry_point 'g'"),
        ({"entry_point": "f;import os"}, "does not define its entry_point"),
        ({"test": "pass"}, r"no function check\(candidate\)"),
        ({"prompt": None}, "not a usable row"),
        ({}, "'H/0' stands on line 1 too"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, str | None], wrong: str) -> None:
    file = tmp_path / "HumanEval.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(BadData, match=rf"HumanEval\.jsonl:2: .*{wrong}"):
        HumanEval(tmp_path)


def test_a_damaged_archive_is_named(data_of: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "HumanEval.jsonl.gz"
    whole = (data_of("humaneval") / file.name).read_bytes()
    for damaged in (b"no archive at all", whole[:20_000], whole[:9000] + b"\xff" * 50 + whole[9050:]):
        file.write_bytes(damaged)
        with pytest.raises(BadData, match=r"HumanEval\.jsonl\.gz:\d+: (the archive is damaged|not a usable row)"):
            HumanEval(tmp_path)
    file.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert [task.id for task in HumanEval(tmp_path).tasks()] == ["H/0"]
