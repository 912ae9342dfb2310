"""Benchmarks by name. Nothing is imported or read before it is asked for.

>>> names()
('gsm8k', 'humaneval', 'trail')
>>> load("gsm9k")
Traceback (most recent call last):
    ...
palmette.benchmarks.errors.UnknownBenchmark: there is no benchmark 'gsm9k'; did you mean 'gsm8k'? There are: ...
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from palmette.benchmarks.errors import BadOption, UnknownBenchmark, choices

if TYPE_CHECKING:
    from palmette.benchmarks.benchmark import Benchmark


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A benchmark of the catalogue."""

    loader: str
    """``module:name`` of what builds it: called with ``data`` first if it reads files, then the options by name."""
    summary: str
    reads_files: bool


_ENTRIES: dict[str, Entry] = {
    "gsm8k": Entry(
        loader="palmette.benchmarks.suites.gsm8k:GSM8K",
        summary="grade-school word problems with a numeric answer (1,319 in the test set)",
        reads_files=True,
    ),
    "humaneval": Entry(
        loader="palmette.benchmarks.suites.humaneval:HumanEval",
        summary="164 Python functions to complete, judged by their tests in a machine",
        reads_files=True,
    ),
    "trail": Entry(
        loader="palmette.benchmarks.suites.trail:Trail",
        summary="generated: follow signs from file to file and report the code at the end",
        reads_files=False,
    ),
}


def names() -> tuple[str, ...]:
    """What :func:`load` knows, sorted."""
    return tuple(sorted(_ENTRIES))


def entry(name: str) -> Entry:
    """The catalogue's line on ``name``.

    Raises:
        UnknownBenchmark: the message names those that exist.
    """
    if name not in _ENTRIES:
        raise UnknownBenchmark(name, _ENTRIES)
    return _ENTRIES[name]


def load(name: str, data: Path | str | None = None, **options: object) -> Benchmark:
    """Build a benchmark. It reads its files here: blocking, not for an event loop.

    ``data`` is the directory (or file) of a benchmark that reads files; ``options`` go to its constructor.

    Raises:
        UnknownBenchmark: no such name.
        BadOption: an option that it does not take, or ``data`` for a generated one.
        MissingData, BadData: see there.
    """
    found = entry(name)
    if data is not None and not found.reads_files:
        raise BadOption(f"{name} is generated and reads no files; leave --data out")
    module, _, attribute = found.loader.partition(":")
    build = cast("Callable[..., Benchmark]", getattr(importlib.import_module(module), attribute))
    known = [parameter for parameter in inspect.signature(build).parameters if parameter != "data"]
    for option in options:
        if option not in known:
            raise BadOption(f"{name} takes no option {option!r}; {choices(option, known)}")
    return build(None if data is None else Path(data), **options) if found.reads_files else build(**options)
