"""A person at a terminal: tmux, with a shell in it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Terminal:
    """Runs for the length of a block. What was on the screen at its end is printed, for a test that failed."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, columns: int = 90, rows: int = 30) -> None:
        self._words = ["tmux", "-S", str(folder / "tmux")]
        self._environment = dict(environment)
        self._size = ["-x", str(columns), "-y", str(rows)]

    def __enter__(self) -> Self:
        self._do("-f", "/dev/null", "new-session", "-d", *self._size, "sh")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print(self.screen())
        self._do("kill-server")

    def screen(self) -> str:
        """What can be read on it."""
        return self._do("capture-pane", "-p")

    def type(self, text: str) -> None:
        """A line."""
        self._do("send-keys", text, "Enter")

    def press(self, key: str) -> None:
        """A key by tmux's name for it, as ``C-c``."""
        self._do("send-keys", key)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window larger or smaller."""
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    def shows_a_prompt(self) -> bool:
        """Whether the last line waits for a command."""
        lines = [line.rstrip() for line in self.screen().splitlines() if line.strip()]
        return bool(lines) and lines[-1].endswith(("#", "$"))

    def _do(self, *words: str) -> str:
        done = subprocess.run(
            [*self._words, *words], env=self._environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout
