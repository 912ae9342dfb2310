"""Benchmarks by name, and what somebody who mistypes is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from palmette.benchmarks import Benchmark, catalog
from palmette.benchmarks.errors import BadOption, MissingData, UnknownBenchmark
from palmette.benchmarks.suites.gsm8k import GSM8K
from palmette.benchmarks.suites.humaneval import HumanEval


def test_a_benchmark_is_built_by_name(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "one?", "answer": "#### 1"}\n')
    assert isinstance(catalog.load("gsm8k", str(tmp_path)), GSM8K)
    typed: Benchmark = GSM8K(tmp_path)  # a test for the type checker: the suites keep the protocol
    also: type[Benchmark] = HumanEval
    assert (typed.name, also.needs_machine) == ("gsm8k", True)
    trail = catalog.load("trail")
    assert (trail.name, trail.dialect) == ("trail", "line")
    assert trail.tasks()


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(
        UnknownBenchmark, match=r"'humanevel'; did you mean 'humaneval'\? There are: gsm8k, humaneval, t"
    ):
        catalog.load("humanevel")


@pytest.mark.parametrize("name", ["gsm8k", "humaneval"])
def test_a_benchmark_of_files_asks_for_its_directory(name: str) -> None:
    with pytest.raises(MissingData, match=f"{name} .* --data"):
        catalog.load(name)


def test_options_that_a_benchmark_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="humaneval takes no option 'timeot'; did you mean 'timeout'"):
        catalog.load("humaneval", tmp_path, timeot=3)
    with pytest.raises(BadOption, match="trail is generated"):
        catalog.load("trail", tmp_path)


def test_the_door_imports_neither_suites_nor_the_database() -> None:
    check = (
        "import sys, palmette.benchmarks, palmette.benchmarks.journal; "
        "print([m for m in sys.modules if m == 'sqlalchemy' or '.suites.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
