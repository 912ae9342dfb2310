"""References that need a process of their own: Erlang's virtual machine, and Thespian alone.

Both are programs that do one thing per line they are sent (``call 1000``), and answer with its cost in seconds.
"""

from __future__ import annotations

import importlib.util
import select
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

HERE: Final = Path(__file__).parent
ANSWER_SECONDS: Final = 120.0


class Companion:
    """A running reference program. Use as a context manager."""

    def __init__(self, *command: str) -> None:
        self._command = command

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def cost(self, what: str, units: int) -> float:
        """What one of ``units`` of ``what`` cost. Raises RuntimeError if the program says nothing."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{what} {units}\n".encode())
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_SECONDS)
        answer = process.stdout.readline() if ready else b""
        if not answer.strip():
            raise RuntimeError(f"{self._command[0]} did not answer {what!r}; it exited with {process.poll()}")
        return float(answer)


def beam() -> Companion | None:
    """Erlang, where it is installed."""
    escript = shutil.which("escript")
    return None if escript is None else Companion(escript, str(HERE / "beam.escript"))


def thespian() -> Companion:
    """Thespian without palmette: one actor process behind its own message transport."""
    return Companion(sys.executable, "-m", "tests.bench.thespian_alone")


def others() -> dict[str, Companion]:
    """Actor libraries that are measured where they are installed, by name; palmette does not depend on them."""
    return {
        name: Companion(sys.executable, "-m", f"tests.bench.{name}_alone")
        for name in ("xoscar", "ray")
        if importlib.util.find_spec(name) is not None
    }
