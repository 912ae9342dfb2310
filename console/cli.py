"""The ``palmette`` command. Its commands are in ``console/commands``, one per file.

Exit codes: 0 done, 1 it did not work, 2 what was typed cannot be meant, 130 and 143 interrupted (see
:mod:`palmette.console.failures`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from palmette.console.commands import cluster, machines, nodes
from palmette.console.commands.demo import demo
from palmette.console.commands.node import node
from palmette.console.commands.report import report
from palmette.console.commands.resume import resume
from palmette.console.commands.run import run
from palmette.console.commands.runs import runs
from palmette.console.commands.stop import stop
from palmette.console.commands.train import train
from palmette.console.commands.tree import tree
from palmette.console.commands.up import up
from palmette.console.commands.version import version
from palmette.console.commands.why import why
from palmette.console.failures import exit_codes

app = typer.Typer(
    name="palmette",
    help="Supervised agents: play benchmarks, train on them, and lose nothing when anything is killed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, panel in (
    (demo, "Play"),
    (run, "Play"),
    (train, "Play"),
    (resume, "Play"),
    (runs, "Look back"),
    (report, "Look back"),
    (tree, "Look inside a running one"),
    (why, "Look inside a running one"),
    (stop, "Look inside a running one"),
    (node, "Several hosts"),
    (up, "Several hosts"),
    (version, "Other"),
):
    app.command(rich_help_panel=panel)(command)
app.add_typer(nodes.app, name="nodes", rich_help_panel="Several hosts")
app.add_typer(cluster.app, name="cluster", rich_help_panel="Several hosts")
app.add_typer(machines.app, name="machines", rich_help_panel="Other")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line ``arguments`` (default: the process's) and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with exit_codes(words):
        code = app(words, prog_name="palmette", standalone_mode=False)
        sys.stdout.flush()
        raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
