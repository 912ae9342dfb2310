"""Harnesses that are programs on a machine, with their model behind the recording proxy.

>>> factory = pi_harness(proxy)                          # the pi coding agent
>>> factory = cli_harness(proxy, "my-agent --quiet")     # any program that speaks OpenAI
"""

from palmette.agents.harnesses.cli import cli_harness
from palmette.agents.harnesses.errors import HarnessDied, HarnessError, HarnessHung
from palmette.agents.harnesses.names import HARNESSES, check_harness, harness_named
from palmette.agents.harnesses.pi import pi_harness

__all__ = [
    "HARNESSES",
    "HarnessDied",
    "HarnessError",
    "HarnessHung",
    "check_harness",
    "cli_harness",
    "harness_named",
    "pi_harness",
]
