"""GSM8K: grade-school word problems with a numeric answer (Cobbe et al. 2021, arXiv:2110.14168).

The data directory holds ``test.jsonl`` (``question``, ``answer``; the answer's last line is ``#### 18``) and, where
recorded answers are to be replayed, ``recorded_solutions.jsonl`` (``question``, ``ground_truth``, and per recording
``{"solution": "… A: 18", "is_correct": …}``). A single file of either form serves as well.

    palmette run gsm8k --data DIR --agent recorded:175b_finetuning
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palmette.benchmarks.criteria import Numeric, final_number
from palmette.benchmarks.errors import BadData, UnknownRecording
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.suites.files import Located, locate, read_rows
from palmette.benchmarks.task import GraderData, Task
from palmette.machines.contract import Machine

if TYPE_CHECKING:
    from palmette.agents.tools import Tool
    from palmette.benchmarks.benchmark import Dialect

TASKS = "test.jsonl"
RECORDINGS = "recorded_solutions.jsonl"
REFERENCE = "reference"
INSTRUCTION = "Reason step by step, then end with a line of its own: #### followed by the number."

_REMEDY = "correct the line or remove it"


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of either file, once read: recorded solutions by the name of the recording."""

    place: Located
    question: str
    answer: str
    recorded: dict[str, str]


class GSM8K:
    """The benchmark. It needs no machine: the answer is judged as text, by its final number."""

    name = "gsm8k"
    needs_machine = False
    dialect: Dialect = "native"

    def __init__(self, data: Path | None) -> None:
        """Read the tasks (blocking). Recordings are read when first asked for.

        Raises:
            MissingData: ``data`` is ``None`` or does not hold ``test.jsonl``.
            BadData: a line has no question or no numeric answer, or two lines ask the same.
        """
        self._file = locate(self.name, data, [TASKS])
        self._rows = list(_by_question(_rows(self._file)).values())
        self._tasks = tuple(_task(index, row) for index, row in enumerate(self._rows))
        self._row_of = {task.id: row for task, row in zip(self._tasks, self._rows, strict=True)}
        self._rubric = Rubric([Numeric(name="answer")])

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def rubric(self, task: Task) -> Rubric:
        return self._rubric

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        """None: the problem is solved by reasoning."""
        return ()

    @cached_property
    def recordings(self) -> tuple[str, ...]:
        """Names of the recorded answers, apart from ``"reference"``; empty where there are none.

        Raises:
            BadData: the file of recordings holds an unusable line, or none for one of the tasks.
        """
        for recorded in self._recorded.values():
            return tuple(recorded)
        return ()

    def replies(self, task: Task, field: str) -> Sequence[str]:
        """One reply: the data set's own solution for ``"reference"``, else the recorded one.

        Raises:
            UnknownRecording: no recording has this name (it is a KeyError too).
            BadData: the recordings do not fit the tasks.
        """
        if field == REFERENCE:
            return (self._row_of[task.id].answer,)
        if field not in self.recordings:
            raise UnknownRecording(self.name, field, (REFERENCE, *self.recordings))
        return (self._recorded[task.id][field],)

    @cached_property
    def _recorded(self) -> dict[str, Mapping[str, str]]:
        """Recorded solutions by task id. All tasks have the same recordings: a gap is an error here, not mid-run."""
        beside = self._file.with_name(RECORDINGS)
        if any(row.recorded for row in self._rows) or not beside.is_file():
            file, rows = self._file, _by_question(self._rows)
        else:
            file, rows = beside, _by_question(_rows(beside))
        names = tuple(dict.fromkeys(name for row in rows.values() for name in row.recorded))
        recorded: dict[str, Mapping[str, str]] = {}
        for task, asked in zip(self._tasks, self._rows, strict=True):
            row = rows.get(_key(asked.question))
            if row is None:
                wrong = f"no recording answers the question of {asked.place.file.name}:{asked.place.line}"
                raise BadData(file, None, f"{wrong} ({asked.question[:60]!r}…)", "use files that belong together")
            missing = [name for name in names if name not in row.recorded]
            if missing:
                raise BadData(
                    row.place.file, row.place.line, f"no recording {missing[0]!r}, unlike other lines", _REMEDY
                )
            recorded[task.id] = row.recorded
        return recorded


def _task(index: int, row: _Row) -> Task:
    grader = GraderData(answer=row.answer)
    return Task(id=f"gsm8k/{index}", prompt=f"{row.question}\n\n{INSTRUCTION}", grader=grader)


def _rows(file: Path) -> Iterator[_Row]:
    for place, fields in read_rows(file, dict[str, object]):
        question = fields.get("question")
        answer = fields.get("answer", fields.get("ground_truth"))
        if not isinstance(question, str) or not question.strip():
            raise BadData(*place, "it has no text under 'question'", _REMEDY)
        if not isinstance(answer, str):
            raise BadData(*place, "it has no text under 'answer' (or 'ground_truth')", _REMEDY)
        if final_number(answer) is None:
            raise BadData(*place, f"its answer ends in no number: {answer[-40:]!r}", _REMEDY)
        recorded: dict[str, str] = {}
        for name, value in fields.items():
            if isinstance(value, dict):
                try:
                    recorded[name] = msgspec.convert(value, _Recording).solution
                except msgspec.ValidationError as error:
                    raise BadData(*place, f"its recording {name!r} is unusable ({error})", _REMEDY) from error
        yield _Row(place=place, question=question, answer=answer, recorded=recorded)


class _Recording(msgspec.Struct, frozen=True):
    solution: str


def _by_question(rows: Iterator[_Row] | Sequence[_Row]) -> dict[str, _Row]:
    found: dict[str, _Row] = {}
    for row in rows:
        first = found.setdefault(_key(row.question), row)
        if first is not row:
            raise BadData(*row.place, f"it asks the same question as line {first.place.line}", "remove one of the two")
    return found


_QUOTES = str.maketrans({"‘": "'", "’": "'", "`": "'", "´": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-"})


def _key(question: str) -> str:
    """The question apart from typography: copies of the data set differ in quotation marks, dashes and spaces."""
    return " ".join(unicodedata.normalize("NFKC", question.translate(_QUOTES)).translate(_QUOTES).split())
