"""``palmette node``: this host takes part in a cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from palmette.actors.cluster.membership import Member

_NAME = typer.Option(help="What this node is called. Default: as in its certificate.", show_default=False)
_CAPABILITY = typer.Option(
    "--capability",
    "-c",
    metavar="KEY=VALUE",
    help="What else it offers: gpu=1, zone=eu (a label), tokens=5 (something countable). May be given again.",
    show_default=False,
)


def node(
    join: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The cluster's head. Without it, this is the head.")
    ] = None,
    bind: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the head listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The head's port.")] = 1900,
    name: Annotated[str | None, _NAME] = None,
    capability: Annotated[list[str] | None, _CAPABILITY] = None,
    limit: Annotated[int | None, typer.Option(help="Children that it takes at most.", show_default=False)] = None,
    loss: Annotated[
        float, typer.Option(metavar="SECONDS", help="Silence after which a host is lost. The head's word counts.")
    ] = 15.0,
) -> None:
    """Take part in a cluster: run children of programs on this host, until Ctrl-C.

    The first host's node is the head; others join it. All of them need credentials: `palmette cluster init` on the
    first host, `palmette cluster invite` for each other one.

    Examples: `palmette node` · `palmette node --join head:1900 --capability gpu=1`
    """
    from palmette.actors.cluster.capabilities import discover
    from palmette.actors.cluster.channel import Address
    from palmette.actors.cluster.credentials import Credentials
    from palmette.actors.cluster.membership import Member
    from palmette.actors.running import run
    from palmette.console.failures import UsageError

    try:
        head = Address(bind, port) if join is None else Address.parse(join)
        offered = discover(_pairs(capability or ()))
    except ValueError as error:
        raise UsageError(str(error)) from error
    credentials = Credentials.load()
    member = Member(
        name=name or credentials.name,
        incarnation=time.time_ns(),
        capabilities=offered,
        head=str(head),
        credentials=str(credentials.directory.absolute()),
        limit=limit,
    )
    raise typer.Exit(run(_live(member, bind, port if join is None else None, loss)))


def _pairs(words: list[str] | tuple[()]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError(f"--capability takes KEY=VALUE, such as gpu=1, not {word!r}")
        pairs[key] = value
    return pairs


async def _live(member: Member, bind: str, port: int | None, loss: float) -> int:
    import asyncio

    from rich.console import Console

    from palmette.actors import System
    from palmette.actors.heartbeat import Heartbeat
    from palmette.console.control_client import NODE
    from palmette.console.interrupts import Interrupts
    from palmette.console.node_log import narrate
    from palmette.console.node_tree import node_tree

    console = Console(highlight=False)
    body = asyncio.current_task()
    assert body is not None

    def stop() -> None:
        body.cancel()

    interrupts = Interrupts(on_first=stop, on_second=stop)
    narrate(console)
    try:
        with interrupts.installed():
            heartbeat = Heartbeat(interval=min(3.0, loss / 5), loss=loss)
            tree = node_tree(member, bind=bind, port=port)
            async with System.start(tree, heartbeat=heartbeat, control=f"{NODE}{member.name}") as system:
                console.print(
                    f"joined {member.head} as [bold]{member.name}[/], with {member.capabilities}", soft_wrap=True
                )
                if port is not None:
                    console.print(f"this is the head; others join with [cyan]palmette node --join {member.head}[/]")
                console.print("Ctrl-C ends it")
                await system.wait_ended()
                console.print(f"{member.name} was removed from the cluster.")
    except asyncio.CancelledError:
        if interrupts.code is None:
            raise
    return interrupts.code or 0
