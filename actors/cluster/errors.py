"""What can go wrong between hosts before anything is said.

::

    ActorError
    └── ClusterError
        ├── CredentialsMissing   this host has none: make or accept some
        ├── BadCredentials       damaged, expired, or not what was asked for
        ├── CannotListen         a port is taken, or an address is not this host's
        ├── HeadLost             the cluster's head is gone; it may be back in a moment (a NodeError, too)
        └── Unreached            nobody answers there
            └── Rejected         somebody does, but it will not have us, or is not of our cluster

The command line shows them as they are; a supervisor that catches ``Unreached`` may try again, the others want a human.
"""

from __future__ import annotations

from palmette.actors.errors import ActorError, NodeError


class ClusterError(ActorError):
    """Something about the hosts of a cluster."""


class CredentialsMissing(ClusterError):
    """There are no credentials on this host."""


class BadCredentials(ClusterError):
    """The credentials on this host, or an invitation, cannot be used."""


class CannotListen(ClusterError, OSError):
    """A port cannot be opened."""


class HeadLost(ClusterError, NodeError):
    """The connection to the head is lost, or there is none to ask."""

    retryable = True


class Unreached(ClusterError, ConnectionError):
    """Nobody answered at an address."""

    retryable = True


class Rejected(Unreached):
    """The other side is not of our cluster, or says that we are not of its."""

    retryable = False
