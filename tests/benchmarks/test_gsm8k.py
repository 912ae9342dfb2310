"""GSM8K: the recorded answers score what the file says, row by row, and bad files are named with their line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from palmette.benchmarks import Task, Transcript
from palmette.benchmarks.errors import BadData, MissingData, UnknownRecording
from palmette.benchmarks.suites.gsm8k import GSM8K


class Verdict(msgspec.Struct):
    is_correct: bool


async def reward(benchmark: GSM8K, task: Task, field: str) -> float:
    answer = benchmark.replies(task.public(), field)[-1]
    return (await benchmark.rubric(task).judge(task, Transcript(answer=answer), None)).reward


@pytest.mark.parametrize(("field", "right"), [("175b_finetuning", 458), ("6b_finetuning", 286)])
async def test_every_recorded_answer_is_judged_as_the_file_says(
    data_of: Callable[[str], Path], field: str, right: int
) -> None:
    benchmark = GSM8K(data_of("gsm8k"))
    lines = (data_of("gsm8k") / "recorded_solutions.jsonl").read_bytes().splitlines()
    rows = [msgspec.json.decode(line, type=dict[str, object]) for line in lines]
    said = {str(row["question"]): msgspec.convert(row[field], Verdict).is_correct for row in rows}
    got = [await reward(benchmark, task, field) for task in benchmark.tasks()]
    expected = [said[task.prompt.rpartition("\n\n")[0]] for task in benchmark.tasks()]
    assert [value == 1.0 for value in got] == expected
    assert (sum(got), len(got)) == (right, 1319)


async def test_the_reference_answers_are_all_right(data_of: Callable[[str], Path]) -> None:
    benchmark = GSM8K(data_of("gsm8k"))
    got = [await reward(benchmark, task, "reference") for task in benchmark.tasks()]
    assert sum(got) == len(got) == 1319
    assert benchmark.recordings == ("6b_finetuning", "175b_finetuning")


async def test_a_single_file_of_either_form_serves(data_of: Callable[[str], Path], tmp_path: Path) -> None:
    whole = GSM8K(data_of("gsm8k") / "recorded_solutions.jsonl")
    assert await reward(whole, whole.tasks()[0], "reference") == 1.0
    assert "175b_finetuning" in whole.recordings
    alone = tmp_path / "mine.jsonl"
    alone.write_bytes((data_of("gsm8k") / "test.jsonl").read_bytes())
    benchmark = GSM8K(alone)
    assert [task.id for task in benchmark.tasks()[:2]] == ["gsm8k/0", "gsm8k/1"]
    assert benchmark.recordings == ()


def row(question: str, answer: str = "#### 1") -> dict[str, object]:
    return {"question": question, "answer": answer}


def recorded(question: str, **solutions: str) -> dict[str, object]:
    fields = {name: {"solution": text, "is_correct": True} for name, text in solutions.items()}
    return {"question": question, "ground_truth": "A: 1", **fields}


def written(
    folder: Path, tasks: Sequence[Mapping[str, object]], recordings: Sequence[Mapping[str, object]] = ()
) -> Path:
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tasks))
    if recordings:
        (folder / "recorded_solutions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in recordings))
    return folder


def test_recordings_are_found_whatever_the_order_and_the_typography(tmp_path: Path) -> None:
    tasks = [row("Janet\u2019s “ducks” lay 3\u20134 eggs."), row("Two  robes?")]
    recordings = [recorded("Two robes?", m="A: 2"), recorded('Janet\'s "ducks" lay 3-4 eggs. ', m="A: 1")]
    benchmark = GSM8K(written(tmp_path, tasks, recordings))
    assert [benchmark.replies(task, "m") for task in benchmark.tasks()] == [("A: 1",), ("A: 2",)]


def test_a_task_without_a_recording_is_named(tmp_path: Path) -> None:
    benchmark = GSM8K(written(tmp_path, [row("one?"), row("two?")], [recorded("one?", m="A: 1")]))
    assert benchmark.replies(benchmark.tasks()[1], "reference") == ("#### 1",)
    with pytest.raises(BadData, match=r"recorded_solutions.jsonl: no recording answers .* test.jsonl:2 \('two\?'"):
        benchmark.replies(benchmark.tasks()[0], "m")


def test_a_row_that_lacks_one_of_the_recordings_is_named(tmp_path: Path) -> None:
    recordings = [recorded("one?", m="A: 1", n="A: 1"), recorded("two?", m="A: 1")]
    benchmark = GSM8K(written(tmp_path, [row("one?"), row("two?")], recordings))
    with pytest.raises(BadData, match=r"recorded_solutions.jsonl:2: no recording 'n'"):
        benchmark.replies(benchmark.tasks()[0], "n")


def test_an_unknown_recording_names_those_that_exist(tmp_path: Path) -> None:
    benchmark = GSM8K(written(tmp_path, [row("one?")], [recorded("one?", big="A: 1")]))
    with pytest.raises(UnknownRecording, match=r"no recorded answers 'bog'; did you mean 'big'\? There are: big, ref"):
        benchmark.replies(benchmark.tasks()[0], "bog")
    with pytest.raises(KeyError):
        benchmark.replies(benchmark.tasks()[0], "bog")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "not a usable row"),
        ("[1]", "not a usable row"),
        ("\udcff", "not a usable row"),
        ('{"answer": "#### 1"}', "no text under 'question'"),
        ('{"question": " ", "answer": "#### 1"}', "no text under 'question'"),
        ('{"question": "q?"}', "no text under 'answer'"),
        ('{"question": "q?", "answer": "who knows"}', "ends in no number: 'who knows'"),
        ('{"question": "q?", "answer": "#### 1", "m": {"text": 1}}', "recording 'm' is unusable"),
        ('{"question": "first? ", "answer": "#### 1"}', "same question as line 1"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: str, wrong: str) -> None:
    file = tmp_path / "test.jsonl"
    file.write_bytes(
        b'{"question": "first?", "answer": "#### 1"}\n\n' + line.encode("utf-8", "surrogateescape") + b"\n"
    )
    with pytest.raises(BadData) as caught:
        GSM8K(tmp_path)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert wrong in str(caught.value)
    assert (caught.value.file, caught.value.line) == (file, 3)


def test_an_empty_file_is_no_benchmark_of_zero_tasks(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(b"")
    with pytest.raises(BadData, match="the file is empty"):
        GSM8K(tmp_path)


def test_missing_data_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"give --data DIR, a directory that holds test\.jsonl"):
        GSM8K(None)
    with pytest.raises(MissingData, match=r"there is no .*nowhere"):
        GSM8K(tmp_path / "nowhere")
    with pytest.raises(MissingData, match=r"has no test\.jsonl \(it is empty\)"):
        GSM8K(tmp_path)


def test_the_public_half_of_a_task_holds_no_answer(data_of: Callable[[str], Path]) -> None:
    task = GSM8K(data_of("gsm8k")).tasks()[0]
    assert task.grader.answer.endswith("#### 18")
    assert "#### 18" not in repr(task.public())
