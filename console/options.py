"""Options that several commands share, and the journal's default place."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_JOURNAL = "palmette.db"
VARIABLE = "PALMETTE_JOURNAL"

JournalOption = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="URL",
        help=f"Where runs are kept: sqlite:///FILE or postgresql://HOST/DB. "
        f"Default: ${VARIABLE}, else {DEFAULT_JOURNAL} in this directory.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", envvar="PALMETTE_CLUSTER", help="The head of a cluster, whose members machines live on."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning of it.")]
AnyRunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="The run's id; may be left out where only one is being played.")
]

ProgramArgument = Annotated[str, typer.Argument(metavar="NAME", help="The program's id, or the beginning of it.")]
AnyProgramArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The program's id, or the beginning of it; none where only one runs."),
]
AgentArgument = Annotated[
    str, typer.Argument(metavar="AGENT", help="Its name, or its address below the program, as pool-1/worker.")
]
IdOption = Annotated[
    str | None,
    typer.Option(
        "--id", "-i", metavar="NAME", help="The program's id, or the beginning of it; none where only one runs."
    ),
]


def journal_url(given: str | None) -> str:
    """The journal's URL; a relative file is meant from here."""
    url = given or os.environ.get(VARIABLE) or f"sqlite:///{DEFAULT_JOURNAL}"
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else "" if "://" in url else url
    return f"sqlite:///{Path(path).absolute()}" if path and not path.startswith(":") else url


def journal_shown(url: str) -> str:
    """The journal for people: the file, or the URL without its password."""
    if url.startswith("sqlite:///"):
        return url.removeprefix("sqlite:///")
    from palmette.benchmarks.journal.connection import parse, shown

    return shown(parse(url))


def journal_hint(given: str | None) -> str:
    """What has to stand behind a proposed command, so that it finds the same journal."""
    return "" if given is None else f" --journal {shlex.quote(journal_shown(journal_url(given)))}"
