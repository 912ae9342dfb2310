"""Criteria on text: what counts as the same answer, and which number an answer ends in."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.benchmarks import Criterion, GraderData, Task, Transcript
from palmette.benchmarks.criteria import Exact, Numeric, Regex, final_number, number_in
from palmette.benchmarks.errors import EvaluatorError


async def score(criterion: Criterion, answer: str | None, reference: str = "") -> float:
    task = Task(id="t", prompt="p", grader=GraderData(answer=reference))
    return (await criterion.evaluate(task, Transcript(answer=answer), None)).score


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("18", 18),
        (" $1,234.50 ", Fraction("1234.5")),
        ("-$5", -5),
        ("$-5", -5),
        ("−7", -7),
        ("+3", 3),
        ("**18**", 18),
        ("18.", 18),
        (".5", Fraction(1, 2)),
        ("3/4 of them", Fraction(3, 4)),
        ("50%", 50),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("-1.8 billion", -1_800_000_000),
        ("5k", 5000),
        ("5 km", 5),
        ("Janet makes $18 a day", 18),
        ("5 + 3 = 8 eggs", 8),
        ("18 (3 for each of 6)", 18),
        ("1,319", 1319),
    ],
)
def test_a_line_states_its_number(line: str, number: int | Fraction) -> None:
    assert number_in(line) == number


@pytest.mark.parametrize(
    "line",
    ["", "none", "from 3 to 4", "5 + 3", "10-5", "3:30", "1,23", "1.2.3", "12,34,567", "--5", "4/0", "9" * 500, "x ="],
)
def test_a_line_without_one_plain_number_states_none(line: str) -> None:
    assert number_in(line) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9 * 2 = 18\n#### 18", 18),
        ("9 * 2 = 18\nA: 18", 18),
        ("A: 3\nwait\n#### 4", 4),
        ("#### 3\nno:\nAnswer: 4 eggs", 4),
        ("so we get #### 12", 12),
        ("**Answer:** $1,000", 1000),
        ("42", 42),
    ],
)
def test_the_last_answer_line_counts(text: str, number: int) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize("text", ["3 hens\nand 4 ducks", "", "####", "#### 4\nA:", "BA: 3\nend"])
def test_prose_is_not_guessed_at(text: str) -> None:
    assert final_number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_every_way_of_writing_a_number_is_read_exactly(value: object) -> None:
    wanted = Fraction(str(value))
    sign, size = ("-", str(value)[1:]) if str(value).startswith("-") else ("", str(value))
    whole, point, rest = size.partition(".")
    grouped = f"{int(whole):,}{point}{rest}"
    for form in (f"{sign}{size}", f"{sign}{grouped}", f"{sign}${grouped}", f"${sign}{grouped}", f"  {sign}{grouped}. "):
        for text in (form, f"work 1 2 3\n#### {form}", f"work 1 2 3\nA:{form}"):
            assert final_number(text) == wanted, text


@given(st.text(alphabet="0123456789.,-+$/=eEkA: #\n*()millonx", max_size=40) | st.text(max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    final_number(text)


async def test_numbers_are_compared_exactly_unless_a_tolerance_is_given() -> None:
    assert await score(Numeric(), "#### 0.30", "#### 0.3") == 1.0
    assert await score(Numeric(), "#### 0.3000001", "#### 0.3") == 0.0
    assert await score(Numeric(absolute=0.5), "#### 10.5", "10") == 1.0
    assert await score(Numeric(absolute=0.5), "#### 10.51", "10") == 0.0
    assert await score(Numeric(relative=0.125), "#### -90", "-80") == 1.0
    assert await score(Numeric(relative=0.125), "#### -90.01", "-80") == 0.0


async def test_no_answer_is_a_miss_but_a_reference_without_a_number_is_an_error() -> None:
    assert await score(Numeric(), None, "#### 1") == 0.0
    assert await score(Numeric(), "no idea", "#### 1") == 0.0
    with pytest.raises(EvaluatorError, match="reference answer of t holds no number"):
        await score(Numeric(), "#### 1", "who knows")


async def test_exact_ignores_the_white_space_around_and_case_on_demand() -> None:
    assert await score(Exact(), " Paris\n", "Paris") == 1.0
    assert await score(Exact(), "paris", "Paris") == 0.0
    assert await score(Exact(ignore_case=True), "STRASSE", "Straße") == 1.0
    assert await score(Exact(expected="x"), "x", "y") == 1.0
    assert await score(Exact(expected=""), None) == 0.0


async def test_a_pattern_is_searched_in_the_answer() -> None:
    assert await score(Regex(pattern=r"^done \d$", flags=re.MULTILINE), "well\ndone 4") == 1.0
    assert await score(Regex(pattern=r"done \d"), "done") == 0.0
    assert await score(Regex(pattern=""), None) == 0.0


def test_settings_that_make_no_sense_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        Regex(pattern="(")
    with pytest.raises(ValueError, match="tolerances"):
        Numeric(absolute=-1.0)
