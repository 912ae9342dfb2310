"""What ``run``, ``train``, ``demo`` and ``resume`` have in common: prepare, play, and say how it went."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from palmette.benchmarks.journal import JournalStore, Run
from palmette.console.closing import print_closing, print_json
from palmette.console.failures import say
from palmette.console.options import journal_hint, journal_shown, journal_url
from palmette.console.session import play
from palmette.console.summary import Summary, summarise
from palmette.console.terminal import is_interactive
from palmette.console.work import Work

Prepare = Callable[[str], Work]
"""From the run's id to its work. Blocks."""


def begin(
    prepare: Prepare, journal: str | None, *, as_json: bool, check: Callable[[Summary], None] | None = None
) -> None:
    """Start a new run, play it, and print how it went. ``check`` may raise about the result.

    Raises:
        SystemExit: with the code of an interruption.
    """
    run_id = secrets.token_hex(4)
    with _spinner("preparing"):
        work = prepare(run_id)
        url = journal_url(journal)
        with JournalStore(url) as store:
            run = store.create_run(work.benchmark, work.config, run_id=run_id)
    _play(work, run, journal, as_json=as_json, check=check)


def go_on(run: Run, prepare: Prepare, journal: str | None, *, as_json: bool) -> None:
    """Play the rest of ``run``, and print how all of it went."""
    with _spinner("preparing"):
        work = prepare(run.id)
    _play(work, run, journal, as_json=as_json, check=None)


def conclude(run: Run, journal: str | None, *, as_json: bool, seconds: float | None = None) -> Summary:
    """Print how ``run`` stands."""
    url = journal_url(journal)
    with JournalStore(url, create=False) as store:
        summary = summarise(store, store.get_run(run.id))
    shown = journal_shown(url)
    if as_json:
        print_json(summary, seconds=seconds, journal=shown)
    else:
        print_closing(summary, seconds=seconds, journal=shown, hint=journal_hint(journal))
    return summary


def _play(work: Work, run: Run, journal: str | None, *, as_json: bool, check: Callable[[Summary], None] | None) -> None:
    url, hint = journal_url(journal), journal_hint(journal)
    if not is_interactive():
        print(f"{work.title}  run {run.id}  {work.planned:,} episodes  journal {journal_shown(url)}", file=sys.stderr)
    try:
        ending = play(work, run, url)
    except Exception:
        say(f"run {run.id} stopped; what it recorded is kept, and `palmette resume {run.id}{hint}` goes on from there")
        raise
    summary = conclude(run, journal, as_json=as_json, seconds=ending.seconds)
    if ending.code:
        say(f"interrupted; `palmette resume {run.id}{hint}` goes on")
        raise SystemExit(ending.code)
    if check is not None:
        check(summary)


def _spinner(what: str) -> AbstractContextManager[object]:
    """Something to look at while files are read and libraries are loaded."""
    return Console(stderr=True).status(what) if is_interactive() else nullcontext()
