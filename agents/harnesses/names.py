"""What ``pi`` and ``cli:COMMAND`` mean."""

from __future__ import annotations

from palmette.actors import Ref
from palmette.agents.errors import UnknownAgent
from palmette.agents.harness import HarnessFactory
from palmette.agents.harnesses.cli import cli_harness
from palmette.agents.harnesses.pi import pi_harness
from palmette.agents.proxy import Proxy

HARNESSES = ("pi", "cli:COMMAND")
"""How they are written on a command line."""


def harness_named(text: str, proxy: Ref[Proxy]) -> HarnessFactory:
    """The harness that ``text`` names, its model behind ``proxy``.

    Raises:
        UnknownAgent: there is none of this name.
        ConfigurationError: ``cli:`` without a command.
    """
    kind, colon, command = text.partition(":")
    if (kind, colon) == ("pi", ""):
        return pi_harness(proxy)
    if (kind, colon) == ("cli", ":"):
        return cli_harness(proxy, command)
    raise UnknownAgent(f"there is no harness {text!r}; there are {', '.join(HARNESSES)}")
