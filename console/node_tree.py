"""What a host's node consists of: the head (on one host of the cluster), the launcher, and the membership.

The head is a process of its own: killing it costs nobody anything but the moment until it is back.
"""

from __future__ import annotations

from palmette.actors.cluster.head import Head
from palmette.actors.cluster.launcher import Launcher
from palmette.actors.cluster.membership import Member, Membership
from palmette.actors.cluster.records import HEAD, LAUNCHER, MEMBERSHIP
from palmette.supervisors import Backoff, Supervisor, child
from palmette.supervisors.spec import ChildSpec


def node_tree(member: Member, *, bind: str, port: int | None) -> ChildSpec[Supervisor]:
    """The tree of a node. With a ``port`` it is the head, too, and listens there on ``bind``."""
    head = child(
        Head,
        bind,
        port or 0,
        member.credentials,
        name=HEAD[1:],
        isolation="process",
        backoff=Backoff(min=0.1, max=5.0),
    )
    launcher = child(Launcher, member, name=LAUNCHER[1:], shutdown=30.0)
    # Without a head it goes on looking for one; told to leave it ends, and the node with it.
    membership = child(
        Membership,
        member,
        name=MEMBERSHIP[1:],
        restart="transient",
        significant=True,
        backoff=Backoff(min=0.2, max=10.0),
        rules={"retryable": "backoff"},
    )
    return Supervisor.spec(
        children=[*([head] if port is not None else []), launcher, membership],
        auto_shutdown="any_significant",
        name="node",
    )
