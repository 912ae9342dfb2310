"""``palmette cluster``: the certificates without which nobody joins."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make a cluster, and let hosts into it.", no_args_is_help=True, rich_markup_mode="markdown")
_Name = Annotated[str, typer.Argument(metavar="NAME", help="What the host is called in the cluster.")]


@app.command()
def init(
    name: Annotated[
        str | None, typer.Option(help="What this host is called. Default: its own name.", show_default=False)
    ] = None,
) -> None:
    """Make a cluster, with this host as the first in it.

    Everything is kept in ~/.palmette/cluster (PALMETTE_CLUSTER_DIR). The key that lets further hosts in stays here:
    keep a copy of authority.pem where nobody else reads it.
    """
    from palmette.actors.cluster.authority import create

    credentials = create(None, name or platform.node() or "head")
    print(f"a new cluster, with {credentials.name} in it: {credentials.directory}")
    print("`palmette node` starts this host's node; `palmette cluster invite NAME > NAME.bundle` lets another host in")


@app.command()
def invite(name: _Name) -> None:
    """Print a bundle that lets one more host in: a certificate and its key.

    Bring it there by a private way, and give it to `palmette cluster accept` there. Whoever has it is that host.

    Example: `palmette cluster invite gpu-a | ssh gpu-a palmette cluster accept -`
    """
    from palmette.actors.cluster.authority import invite as make

    bundle = make(None, name)
    if sys.stdout.isatty():
        print("(this is a secret: send it to a file or a pipe, `> NAME.bundle`)", file=sys.stderr)
    sys.stdout.write(bundle.decode("ascii"))


@app.command()
def accept(bundle: Annotated[str, typer.Argument(metavar="FILE", help="The bundle; `-` is standard input.")]) -> None:
    """Make this host one of the cluster that a bundle is from."""
    from palmette.actors.cluster.authority import accept as take

    read = sys.stdin.buffer.read() if bundle == "-" else Path(bundle).read_bytes()
    credentials = take(None, read)
    print(f"this host is {credentials.name} now: {credentials.directory}")
    print("`palmette node --join HEAD:1900` starts its node")


@app.command()
def rotate(
    finish: Annotated[bool, typer.Option("--finish", help="Trust the old authority no longer, on this host.")] = False,
) -> None:
    """Replace the key that lets hosts in, for example because a bundle was lost.

    Afterwards invite every host anew, under its own name; then finish the rotation, here and on each of them. Nodes
    that run need no restart.
    """
    from palmette.actors.cluster.authority import finish_rotation
    from palmette.actors.cluster.authority import rotate as begin

    if finish:
        finish_rotation(None)
        print("the old authority counts for nothing on this host any more")
    else:
        begin(None)
        print("a new authority; the old one is trusted until `palmette cluster rotate --finish`")
        print("next: invite every other host anew (`palmette cluster invite NAME`), and accept the bundle there")
