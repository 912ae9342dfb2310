"""A benchmark is a named list of tasks, the tools that come with them, and the rubric that judges what was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from palmette.agents.tools import Tool
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.task import Task
from palmette.machines.contract import Machine

Dialect = Literal["native", "line"]


class Benchmark(Protocol):
    """Tasks and how they are judged. Implementations are cheap to build and hold no open resource."""

    name: str
    needs_machine: bool
    """Whether an episode gets a machine; the evaluators run in the same one, after the agent."""
    dialect: Dialect
    """How agents write tool calls: the model's native ones, or one-line commands such as ``read 3``."""

    def tasks(self) -> Sequence[Task]: ...

    def rubric(self, task: Task) -> Rubric: ...

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        """What the agent may use. ``task`` is the public half."""
        ...

    def replies(self, task: Task, field: str) -> Sequence[str]:
        """The assistant's replies for ``task`` as recorded under ``field``; ``"reference"`` is the solution.

        Raises:
            KeyError: there is no such recording; the message names those that exist.
        """
        ...
