"""What ``pi`` and ``cli:COMMAND`` mean."""

from __future__ import annotations

import shlex

from palmette.actors import Ref
from palmette.agents.errors import ConfigurationError, UnknownAgent
from palmette.agents.harness import HarnessFactory
from palmette.agents.harnesses.cli import cli_harness
from palmette.agents.harnesses.pi import pi_harness
from palmette.agents.proxy import Proxy

HARNESSES = ("pi", "pi:COMMAND", "cli:COMMAND")
"""How they are written on a command line."""


def check_harness(text: str) -> None:
    """Look whether ``text`` names a harness. Raises as :func:`harness_named`."""
    _kind_and_words(text)


def harness_named(text: str, proxy: Ref[Proxy]) -> HarnessFactory:
    """The harness that ``text`` names, its model behind ``proxy``.

    ``pi:COMMAND`` is for machines where pi is not found as ``pi``: ``pi:npx @earendil-works/pi-coding-agent``.

    Raises:
        UnknownAgent: there is none of this name.
        ConfigurationError: ``cli:`` or ``pi:`` without a command, or with one that no shell could read.
    """
    kind, words = _kind_and_words(text)
    return pi_harness(proxy, command=words) if kind == "pi" else cli_harness(proxy, words)


def _kind_and_words(text: str) -> tuple[str, list[str]]:
    kind, colon, command = text.partition(":")
    if text == "pi":
        return kind, ["pi"]
    if kind not in {"pi", "cli"} or not colon:
        raise UnknownAgent(f"there is no harness {text!r}; there are {', '.join(HARNESSES)}")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} cannot be read as a command: {error}") from None
    if not words:
        raise ConfigurationError(f"{kind}: needs a command after it, as in {kind}:my-agent")
    return kind, words
