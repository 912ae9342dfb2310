"""``palmette tree``: the supervision tree of a run that is being played."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from palmette.console.options import AnyRunArgument, JsonOption


def tree(
    run: AnyRunArgument = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every actor, even where there are hundreds.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the supervision tree of a run, a program or a system that runs right now."""
    import msgspec
    from rich.console import Console

    from palmette.console.control import TreeVerb
    from palmette.console.control_client import ask
    from palmette.console.kernel_tree import shown
    from palmette.console.tree import SupervisionTree

    reply = ask(TreeVerb(), run)
    assert reply.tree is not None
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(reply.tree), indent=2).decode() + "\n")
        return
    console = Console(highlight=False)
    # What scrolls away is not read; a pipe takes everything.
    most = None if every or not console.is_terminal else max(console.height - 2, 8)
    console.print(SupervisionTree(shown(reply.tree, root=reply.run), most_lines=most))
