from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from palmette.console import curve as module
from palmette.console.curve import MIN_WIDTH, curve

BLANK = "\u2800"
# Any reward at all: missing, NaN, infinite, and as large as floats get.
values = st.lists(st.none() | st.floats(), max_size=300)
widths = st.integers(MIN_WIDTH, 150)
heights = st.integers(1, 12)


def dots(line: str) -> int:
    return sum((ord(char) - 0x2800).bit_count() for char in line if "\u2800" <= char <= "\u28ff")


@given(values=values, width=widths, height=heights, ascii_only=st.booleans())
def test_a_curve_fits_the_room_it_was_given(
    values: list[float | None], width: int, height: int, ascii_only: bool
) -> None:
    lines = curve(values, width, height, ascii_only=ascii_only).plain.split("\n")
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    assert not ascii_only or all(line.isascii() for line in lines)


@given(values=values, width=widths, height=heights)
def test_there_are_dots_exactly_where_there_are_values(values: list[float | None], width: int, height: int) -> None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    assert (dots(curve(values, width, height).plain) > 0) == bool(known)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(40, 120), st.integers(2, 10))
def test_a_curve_without_gaps_has_no_holes(rewards: list[float], width: int, height: int) -> None:
    columns = [set[int]() for _ in range(width)]
    for line in curve(rewards, width, height).plain.split("\n"):
        body = line.partition("┤")[2]
        for at, char in enumerate(body):
            if char != BLANK:
                columns[at].add(ord(char))
    drawn = [at for at, cells in enumerate(columns) if cells]
    assert drawn == list(range(len(drawn)))


def test_more_values_than_dots_are_averaged_not_dropped() -> None:
    drawn = [dots(line) for line in curve([0.0, 1.0] * 5000, 30, 5).plain.split("\n")]
    assert drawn[2] > 0
    assert sum(drawn) == drawn[2]


def test_a_missing_value_is_a_gap_and_no_zero() -> None:
    with_gap = curve([1.0, 1.0, None, None, 1.0, 1.0], 30, 3).plain.split("\n")
    assert dots(with_gap[-1]) == 0
    assert BLANK in with_gap[0].partition("┤")[2]


def test_rewards_are_drawn_between_zero_and_one() -> None:
    top, *_, bottom = curve([0.4, 0.6], 30, 5).plain.split("\n")
    assert top.startswith("1.0 ")
    assert bottom.startswith("0.0 ")


def test_other_values_are_drawn_between_their_extremes() -> None:
    top, *_, bottom = curve([-2.0, 6.0], 30, 5).plain.split("\n")
    assert top.split()[0] == "6.0"
    assert bottom.split()[0] == "-2.0"


@pytest.mark.parametrize(("width", "height"), [(9, 3), (30, 0)])
def test_too_little_room_is_refused_with_the_numbers(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"got {width} and {height}"):
        curve([1.0], width, height)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bounds_that_span_nothing_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite and ascending"):
        curve([1.0], 20, 3, bounds=bounds)


def test_the_example_in_its_docstring_is_true() -> None:
    assert doctest.testmod(module).failed == 0
