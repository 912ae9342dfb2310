"""Criteria on the text of the final answer: :class:`Exact` and :class:`Regex`. No answer is a miss."""

from __future__ import annotations

import re
from dataclasses import dataclass

from palmette.benchmarks.criteria.verdicts import shown, verdict
from palmette.benchmarks.outcomes import CriterionScore
from palmette.benchmarks.task import Task, Transcript
from palmette.machines.contract import Machine


@dataclass(kw_only=True, slots=True)
class Exact:
    """The answer is ``expected``, or the task's reference answer where that is ``None``.

    White space around the two is ignored; case is not unless ``ignore_case``.
    """

    expected: str | None = None
    ignore_case: bool = False
    name: str = "exact"
    weight: float = 1.0

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        if transcript.answer is None:
            return verdict(self.name, self.weight, False, "no answer")
        expected = (task.grader.answer if self.expected is None else self.expected).strip()
        answer = transcript.answer.strip()
        same = answer.casefold() == expected.casefold() if self.ignore_case else answer == expected
        return verdict(self.name, self.weight, same, f"answered {shown(answer)}, expected {shown(expected)}")


@dataclass(kw_only=True, slots=True)
class Regex:
    """The answer holds a match of ``pattern`` (``re`` syntax; anchor it to match the whole).

    The pattern is the benchmark author's: it runs on the event loop, so keep it free of nested repetition.
    """

    pattern: str
    flags: re.RegexFlag = re.NOFLAG
    name: str = "regex"
    weight: float = 1.0

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern, self.flags)
        except re.error as error:
            raise ValueError(
                f"{self.pattern!r} of criterion {self.name!r} is no regular expression: {error}"
            ) from error

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        if transcript.answer is None:
            return verdict(self.name, self.weight, False, "no answer")
        found = re.search(self.pattern, transcript.answer, self.flags)
        how = f"found {shown(found[0])}" if found else f"no match of {self.pattern!r}"
        return verdict(self.name, self.weight, found is not None, how)
