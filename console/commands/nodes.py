"""``palmette nodes``: the hosts of a cluster, and what is asked of one of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from palmette.console.options import JsonOption

if TYPE_CHECKING:
    from palmette.actors import Ref
    from palmette.actors.cluster.head import Head
    from palmette.actors.cluster.records import ClusterRow, MemberRow

T = TypeVar("T")

app = typer.Typer(help="The hosts of a cluster.", rich_markup_mode="markdown")
ClusterOption = Annotated[
    str, typer.Option("--cluster", metavar="HOST:PORT", envvar="PALMETTE_CLUSTER", help="The cluster's head.")
]
_AT = "127.0.0.1:1900"
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The member, as `palmette nodes` has it.")]
_COLOURS = {"up": "green", "draining": "yellow", "lost": "red"}


@app.callback(invoke_without_command=True)
def nodes(context: typer.Context, cluster: ClusterOption = _AT, json: JsonOption = False) -> None:
    """Show the members of a cluster: what each offers, and what lives there."""
    if context.invoked_subcommand is not None:
        context.obj = cluster
        return
    import msgspec

    from palmette.actors.cluster.head import Head

    row = ask(cluster, lambda head: head.call(Head.cluster))
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(row), indent=2).decode() + "\n")
    else:
        show(row)


@app.command()
def drain(
    context: typer.Context,
    name: _Name,
    move: Annotated[
        bool, typer.Option("--move", help="Stop what runs there, for its supervisors to start it elsewhere.")
    ] = False,
) -> None:
    """Give a member nothing new; what runs there finishes, or moves."""
    from palmette.actors.cluster.head import Head

    there = ask(_cluster(context), lambda head: head.call(Head.drain, name, move))
    what = "moving" if move else "left to finish"
    print(f"{name} gets nothing new; {there} {'child is' if there == 1 else 'children are'} {what}")


@app.command()
def remove(context: typer.Context, name: _Name) -> None:
    """Have a member leave at once: what runs there is killed, and restarted elsewhere by its supervisors."""
    from palmette.actors.cluster.head import Head

    ask(_cluster(context), lambda head: head.call(Head.remove, name))
    print(f"{name} is out")


def _cluster(context: typer.Context) -> str:
    assert isinstance(context.obj, str)
    return context.obj


def ask(cluster: str, question: Callable[[Ref[Head]], Awaitable[T]]) -> T:
    """Put one question to a cluster's head."""
    from palmette.actors.cluster.channel import Address
    from palmette.actors.cluster.head import Head
    from palmette.actors.cluster.visit import visit
    from palmette.actors.running import run
    from palmette.console.failures import Failed, UsageError

    try:
        address = Address.parse(cluster)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        return run(visit(address, Head, question))
    except OSError as error:
        raise Failed(f"no head answers at {cluster}: {error}; start one with `palmette node`") from error


def show(row: ClusterRow) -> None:
    """For people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for title in ("node", "state", "for", "offers", "children"):
        table.add_column(title, no_wrap=title != "offers")
    for member in row.members:
        colour = _COLOURS[member.state]
        table.add_row(
            member.name,
            f"[{colour}]{member.state}[/]",
            _ago(time.time() - member.since),
            str(member.capabilities),
            _children(member),
        )
    console.print(table)
    for text in row.waiting:
        console.print(f"[yellow]waiting[/] {text}")


def _children(member: MemberRow) -> str:
    held = [f"{lease.path} ({lease.program})" for lease in member.leases]
    return "\n".join(held[:8] + ([f"and {len(held) - 8} more"] if len(held) > 8 else [])) or "–"


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
