"""``palmette report``: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palmette.console.options import JournalOption, RunArgument


def report(
    run: RunArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: palmette-RUN.html.", show_default=False),
    ] = None,
    journal: JournalOption = None,
) -> None:
    """Write one self-contained HTML page about a run: reward curve, outcomes, restarts, failures."""
    from palmette.benchmarks.journal import JournalStore
    from palmette.console.journal_report import report_data
    from palmette.console.options import journal_url
    from palmette.console.report import render_report

    with JournalStore(journal_url(journal), create=False) as store:
        found = store.get_run(run)
        page = render_report(report_data(store, found))
    path = output if output is not None else Path(f"palmette-{found.id}.html")
    path.write_text(page, encoding="utf-8")
    print(path)
