"""A criterion that runs an answer as a Python program, together with hidden tests, in the episode's machine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from palmette.benchmarks.criteria.commands import ending
from palmette.benchmarks.criteria.verdicts import required, verdict
from palmette.benchmarks.errors import EvaluatorError
from palmette.benchmarks.outcomes import CriterionScore
from palmette.benchmarks.task import Task, Transcript
from palmette.machines.contract import Limits, Machine


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    sources: tuple[str, ...]
    """Readings of the answer as Python source; the first that compiles in the machine is run."""
    tests: str
    """Source that is run after it in the same namespace; it must raise on failure."""


def _program(task: Task, answer: str) -> Program:
    return Program(sources=(answer,), tests=task.grader.tests)


@dataclass(kw_only=True, slots=True)
class UnitTests:
    """The answer, as a program, passes the task's hidden tests within limits of time and memory.

    ``build`` makes the program from the task and the answer; as given it runs the answer itself and then
    ``task.grader.tests``. ``interpreter`` is looked up on the machine's own path and must be Python 3.8 or newer; it
    runs isolated (``-I``): files that the agent left in the working directory shadow no module. ``timeout`` is in
    seconds of wall clock and generous on purpose; processor time and memory are what ``limits`` is for.
    """

    build: Callable[[Task, str], Program] = _program
    interpreter: str = "python3"
    timeout: float = 40.0
    limits: Limits = Limits(memory=1 << 30, cpu=10, file_size=16 << 20)  # noqa: RUF009 - frozen
    name: str = "tests"
    weight: float = 1.0

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        """Judge; an empty answer fails without being run.

        Raises:
            EvaluatorError: the interpreter did not come as far as the answer.
            Exception: the machine's own, when it is lost or has no such interpreter.
        """
        if transcript.answer is None or not transcript.answer.strip():
            return verdict(self.name, self.weight, False, "no answer")
        program = self.build(task, transcript.answer)
        ready, done = secrets.token_hex(16), secrets.token_hex(16)
        job = {"ready": ready, "done": done, "sources": program.sources, "tests": program.tests}
        result = await required(machine, self.name).exec(
            [self.interpreter, "-I", "-B", "-c", _runner()],
            stdin=json.dumps(job).encode(),  # ASCII: no encoding of the machine's can spoil it
            timeout=self.timeout,
            limits=self.limits,
            max_output=1 << 16,
        )
        if not result.stdout.startswith(ready.encode() + b"\n"):
            raise EvaluatorError(
                f"{self.interpreter} did not start the tests of {task.id} ({ending(result, self.timeout)}); "
                "it must be Python 3.8 or newer and fit into the criterion's limits"
            )
        finished = result.stdout.endswith(b"\n" + done.encode() + b"\n")
        if finished and result.ok:
            return verdict(self.name, self.weight, True, "all tests passed")
        early = "ended before the last test; " if result.ok else ""
        return verdict(self.name, self.weight, False, early + ending(result, self.timeout))


@cache
def _runner() -> str:
    return Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
