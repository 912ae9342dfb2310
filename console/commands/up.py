"""``palmette up``: make a host that can be reached over SSH a member of the cluster, for as long as this runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Option = typer.Option
VARIABLE = "PALMETTE_CLUSTER"
LEASE = 15
"""Seconds after which a node whose host has lost us ends: as long as the cluster takes to give a member up."""

_MANY = "May be given again."


def up(
    image: Annotated[str, typer.Argument(metavar="ssh://[USER@]HOST", help="Where the node is to run.")],
    head: Annotated[
        str | None,
        Option(
            metavar="HOST:PORT",
            help=f"The cluster's head, as that host can reach it. Default: ${VARIABLE}.",
            show_default=False,
        ),
    ] = None,
    capability: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help=f"What it offers beyond what is found: gpu=1, zone=eu. {_MANY}"),
    ] = None,
    name: Annotated[
        str | None, Option(metavar="NAME", help="The member's name. Default: that of the host.", show_default=False)
    ] = None,
    bundle: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Its credentials, from `palmette cluster invite`. Default: made here, where the authority is.",
            show_default=False,
        ),
    ] = None,
    python: Annotated[
        str | None,
        Option(metavar="PATH", help="A Python on that host that has this palmette.", show_default=False),
    ] = None,
    install: Annotated[
        list[str] | None,
        Option("--with", metavar="REQUIREMENT", help=f"For pip there: a requirement, a wheel of this host. {_MANY}"),
    ] = None,
    pip: Annotated[
        list[str] | None, Option(metavar="OPTION", help=f"For pip there: --pip=--index-url=URL. {_MANY}")
    ] = None,
    env: Annotated[
        list[str] | None, Option(metavar="NAME=VALUE", help=f"For the node, and all that runs on it. {_MANY}")
    ] = None,
) -> None:
    """Start a node on a host over SSH, keep it up, and take it down again at Ctrl-C.

    Python 3.11 has to be there; palmette is installed from here, into a directory that goes with the node. A node that
    ends, or whose host is lost, is started again.

    Examples: `palmette up ssh://user@gpuhost --head 10.0.0.1:1900 --capability gpu=1`
    """
    import logging

    from palmette.actors import run
    from palmette.actors.cluster.capabilities import parse_capabilities
    from palmette.console.failures import UsageError
    from palmette.console.raising import keep_up
    from palmette.machines.carrier import NodePlan
    from palmette.machines.ssh.address import parse_image

    head = head or os.environ.get(VARIABLE)
    if not head:
        raise UsageError(f"which cluster? Name its head: --head HOST:PORT, or set {VARIABLE}")
    if not image.startswith("ssh://"):
        raise UsageError(f"a node is brought up over SSH; write ssh://user@host instead of {image!r}")
    name = name or parse_image(image.removeprefix("ssh://")).target.host
    try:
        capabilities = parse_capabilities(capability or [])
    except ValueError as error:
        raise UsageError(str(error)) from None
    if wrong := [text for text in env or () if "=" not in text]:
        raise UsageError(f"a variable is NAME=VALUE, such as HF_HOME=/models, got --env {wrong[0]!r}")
    plan = NodePlan(
        image=image if "lease=" in image else f"{image}{'&' if '?' in image else '?'}lease={LEASE}",
        join=head,
        capabilities=capabilities,
        bundle=_invitation(name) if bundle is None else bundle.read_bytes(),
        python=python or "",
        install=(*(pip or ()), *(install or ())),
        environment=dict(text.split("=", 1) for text in env or ()),
    )
    logging.basicConfig(format="%(message)s")
    logging.getLogger("palmette").setLevel(logging.INFO)
    raise typer.Exit(run(keep_up(plan, name)))


def _invitation(name: str) -> bytes:
    from palmette.actors.cluster.authority import invite

    return invite(None, name)
