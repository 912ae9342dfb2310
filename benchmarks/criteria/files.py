"""A criterion on a file that the agent was to write."""

from __future__ import annotations

import re
from dataclasses import dataclass

from palmette.benchmarks.criteria.verdicts import required, shown, verdict
from palmette.benchmarks.outcomes import CriterionScore
from palmette.benchmarks.task import Task, Transcript
from palmette.machines.contract import Machine
from palmette.machines.errors import FileTooLarge, NotAFile, PathEscapes


@dataclass(kw_only=True, slots=True)
class FileCheck:
    """``path`` exists in the machine and, where given, is exactly ``content`` and holds a match of ``pattern``.

    A file larger than ``max_bytes`` is a miss. ``pattern`` is matched on the text as UTF-8.
    """

    path: str
    content: bytes | None = None
    pattern: str | None = None
    max_bytes: int = 1 << 20
    name: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        self.name = self.name or f"file {self.path}"
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"{self.pattern!r} of {self.name!r} is no regular expression: {error}") from error

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        """Judge. What the agent may have done to the path is a miss; a machine that is lost raises."""
        try:
            data = await required(machine, self.name).get(self.path, max_bytes=self.max_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return self._miss("does not exist")
        except IsADirectoryError:
            return self._miss("is a directory")
        except (NotAFile, PathEscapes):
            return self._miss("is no regular file of the machine")
        except FileTooLarge:
            return self._miss(f"is larger than {self.max_bytes} bytes")
        text = data.decode("utf-8", "replace")
        if self.content is not None and data != self.content:
            return self._miss(f"holds {shown(text)}")
        if self.pattern is not None and not re.search(self.pattern, text):
            return self._miss(f"has no match of {self.pattern!r}: {shown(text)}")
        return verdict(self.name, self.weight, True, f"{self.path} is as expected")

    def _miss(self, how: str) -> CriterionScore:
        return verdict(self.name, self.weight, False, f"{self.path} {how}")
