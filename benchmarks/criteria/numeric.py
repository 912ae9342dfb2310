"""Reading the number that an answer ends in, and judging it.

The final number stands on the last *answer line*: after ``####`` (GSM8K), after ``A:`` or ``Answer:`` (the recorded
solutions), or it is the whole one-line answer. Anything else is no answer: prose with numbers in it is not guessed at.

>>> final_number("16 - 3 - 4 = 9 eggs.\\n#### $1,234.50")
Fraction(2469, 2)
>>> final_number("A: 5 + 3 = 8 eggs")
Fraction(8, 1)
>>> final_number("she has 3 hens\\nand 4 ducks") is None
True
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from palmette.benchmarks.criteria.verdicts import shown, verdict
from palmette.benchmarks.errors import EvaluatorError
from palmette.benchmarks.outcomes import CriterionScore
from palmette.benchmarks.task import Task, Transcript
from palmette.machines.contract import Machine

_MARKER = re.compile(r"^(?:.*####|[ \t>*_]*(?:A|Answer)[ \t]*:)(.*)$", re.MULTILINE | re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+(?:[.,][0-9]+)*|\.[0-9]+")
_PLAIN = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?")
# A sign counts only where nothing stands before it that it could subtract from.
_BEFORE = re.compile(r"(?:^|(?<=[^\w)\].,]))([-+−]?) ?[$€£¥]? ?([-+−]?)$")
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]{1,3})(?![\w.])")
_DENOMINATOR = re.compile(r" ?/ ?([0-9]+)(?![.,]?[0-9])")
_OPERATOR = re.compile(r"\s*[-+−–*/x×÷:^]\s*[$€£¥]?[0-9]")
_MARKUP = re.compile(r"\*\*|[_`~\\]|^\s*\*|\*\s*$")
_SCALE = re.compile(r"[ -]?(hundred|thousand|million|billion|trillion)\b|k\b", re.IGNORECASE)
_SCALES = {
    "hundred": 100, "thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
_LONGEST = 400
"""Digits; a longer run is noise, and exact arithmetic on it would cost time."""


def final_number(text: str) -> Fraction | None:
    """The number on the last answer line of ``text``, or ``None``; see the module's text."""
    lines = _MARKER.findall(text)
    if lines:
        return number_in(str(lines[-1]))
    whole = text.strip()
    return number_in(whole) if "\n" not in whole else None


def number_in(line: str) -> Fraction | None:
    """The one number that ``line`` states, exactly, or ``None`` where there is none or no telling which.

    Understands thousands separators, currency and percent signs (both ignored), fractions, exponents and the words
    from "hundred" to "trillion". After an ``=`` only what follows the last one counts; of several numbers the one
    that the line begins with.
    """
    line = _MARKUP.sub("", line).rpartition("=")[2].strip()
    found = list(_DIGITS.finditer(line))
    if not found:
        return None
    first = found[0]
    rest = line[first.end() :]
    denominator = _DENOMINATOR.match(rest)
    exponent = _EXPONENT.match(rest)
    leads = re.fullmatch(r"[-+−]? ?[$€£¥]? ?[-+−]?", line[: first.start()]) is not None
    more = len(found) > (2 if denominator or exponent else 1)
    if more and (not leads or _OPERATOR.match(rest)):
        return None
    if len(first[0]) > _LONGEST or not _PLAIN.fullmatch(first[0]):
        return None
    value = Fraction(first[0].replace(",", ""))
    if exponent:
        value *= Fraction(10) ** int(exponent[1])
    elif denominator:
        if len(denominator[1]) > _LONGEST or int(denominator[1]) == 0:
            return None
        value /= int(denominator[1])
    elif scale := _SCALE.match(rest):
        value *= _SCALES[scale[0].strip(" -").lower()]
    before = _BEFORE.search(line[: first.start()])
    signs = (before[1] + before[2]) if before else ""
    if len(signs) > 1:
        return None
    return -value if signs in ("-", "−") else value


@dataclass(kw_only=True, slots=True)
class Numeric:
    """The answer's final number equals the reference answer's, exactly or within a tolerance.

    ``absolute`` is in the answer's own unit, ``relative`` a share of the expected number; the larger of the two counts.
    ``read`` finds the number in a text, the reference answer's as well as the agent's.
    """

    absolute: float = 0.0
    relative: float = 0.0
    read: Callable[[str], Fraction | None] = final_number
    name: str = "number"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.absolute < float("inf") and 0 <= self.relative < float("inf")):
            raise ValueError(
                f"tolerances of {self.name!r} must be finite and >= 0, got {self.absolute} and {self.relative}"
            )

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        """Raises EvaluatorError where the reference answer itself holds no number."""
        expected = self.read(task.grader.answer)
        if expected is None:
            raise EvaluatorError(f"the reference answer of {task.id} holds no number: {shown(task.grader.answer)}")
        if transcript.answer is None:
            return verdict(self.name, self.weight, False, "no answer")
        got = self.read(transcript.answer)
        if got is None:
            return verdict(self.name, self.weight, False, f"no number at the end of {shown(transcript.answer[-80:])}")
        slack = max(Fraction(self.absolute), Fraction(self.relative) * abs(expected))
        return verdict(self.name, self.weight, abs(got - expected) <= slack, f"read {got}, expected {expected}")
