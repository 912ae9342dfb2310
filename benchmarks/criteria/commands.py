"""A criterion that runs a command in the episode's machine and looks at how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palmette.benchmarks.criteria.verdicts import required, shown, verdict
from palmette.benchmarks.outcomes import CriterionScore
from palmette.benchmarks.task import Task, Transcript
from palmette.machines.contract import ExecResult, Limits, Machine


@dataclass(kw_only=True, slots=True)
class CommandExit:
    """``command`` ends with ``code`` within ``timeout`` seconds. A string goes to ``sh -c``, a sequence is run as is.

    A command that cannot be started, or a machine that is lost, raises: that says nothing about the agent.
    """

    command: str | Sequence[str]
    code: int = 0
    timeout: float = 60.0
    limits: Limits | None = None
    name: str = "command"
    weight: float = 1.0

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        result = await required(machine, self.name).exec(self.command, timeout=self.timeout, limits=self.limits)
        passed = result.exit_code == self.code and not result.timed_out
        return verdict(self.name, self.weight, passed, ending(result, self.timeout))


def ending(result: ExecResult, timeout: float) -> str:
    """How a command ended, and the last line that it wrote to its standard error, for a reason."""
    if result.timed_out:
        how = f"killed after {timeout:g} s"
    elif result.exit_code is None:
        how = f"ended by signal {result.signal}"
    else:
        how = f"exit code {result.exit_code}"
    lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"{how}: {shown(lines[-1])}" if lines else how
