"""The bench runs, and every row says what it is asked to say. Its figures are nobody's business here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.measure import Line, LoopName, Settings, compare, growth
from tests.bench.run import ROWS, loops, measure

# Each row on one of its loops: what differs between them is the loop's own.
CASES: list[tuple[str, LoopName]] = [(row, loops(row)[number % len(loops(row))]) for number, row in enumerate(ROWS)]


@pytest.mark.parametrize(("row", "loop"), CASES)
def test_every_row_compares_us_with_a_reference_and_names_a_bar(
    row: str, loop: LoopName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALMETTE_MACHINES", str(tmp_path / "machines"))
    lines = measure(row, Settings(small=True, loop=loop))
    if not lines and row in ("docker", "ssh"):
        pytest.skip(f"there is no {row} to measure on this machine")
    assert lines
    assert any(line.met is not None for line in lines)
    for line in lines:
        assert line.loop == loop
        assert line.work
        assert line.reference
        assert line.low <= line.ratio <= line.high
        assert all(math.isfinite(value) for value in (line.ours, line.theirs, line.ratio))
        if line.unit:
            assert line.ours > 0
            assert line.theirs > 0


def lines() -> list[Line]:
    costs = {"ours": [2.0, 4.0, 6.0], "theirs": [1.0, 1.0, 1.0]}
    return [
        compare("slow", "asyncio", costs, "ours", "theirs", at_most=3.0),
        compare("slow", "uvloop", costs, "ours", "theirs", at_least=0.5),
        compare("free", "asyncio", costs, "theirs", "ours", unit="B"),
    ]


def test_a_bar_for_costs_is_missed_above_and_one_for_speeds_below() -> None:
    assert [(line.ratio, line.met) for line in lines()] == [(4.0, False), (0.25, False), (0.25, None)]
    costs = {"ours": [1.0], "theirs": [1.0]}
    assert compare("even", "asyncio", costs, "ours", "theirs", at_most=1.0).met


def test_the_exponent_of_growth_is_that_of_the_power_law() -> None:
    assert growth({n: 3.0 * n**2 for n in (10, 100, 1000)}) == pytest.approx(2.0)
    assert growth(dict.fromkeys((10, 100, 1000), 7.0)) == pytest.approx(0.0)


def test_the_page_has_a_row_for_every_line_and_the_plot_is_a_picture(tmp_path: Path) -> None:
    page = report.page(lines(), date="2026-11-21")
    assert page.startswith("Measured on 2026-11-21: ")
    assert page.count("\n| slow |") == 2
    assert "| ≤ 3 | MISSED |" in page
    pytest.importorskip("matplotlib")
    assert report.plot(lines(), tmp_path / "bench.svg")
    assert "<svg" in (tmp_path / "bench.svg").read_text()
