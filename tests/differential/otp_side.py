"""Schedules on the reference: OTP's own ``supervisor``, in an emulator of its own.

One emulator takes many schedules; it reads and runs while this process does its own share. Erlang is Debian's
``erlang-base``; as root on Debian it is installed where it is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from differential.schedules import Schedule

SOURCE = Path(__file__).with_name("otp_reference.erl")


def is_here() -> bool:
    """Whether there are ``erl`` and ``erlc``."""
    return shutil.which("erl") is not None and shutil.which("erlc") is not None


class Reference:
    """The compiled reference. One per test session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        subprocess.run(["erlc", "-W", "-Werror", "-o", folder, SOURCE], check=True, timeout=120)

    def start(self, schedules: Sequence[Schedule]) -> Running:
        """Begin to run ``schedules``."""
        return Running(self._folder, schedules)

    def trace(self, schedule: Schedule) -> list[str]:
        """Run one schedule."""
        with self.start([schedule]) as running:
            return running.traces()[0]


class Running:
    """An emulator at work. As a context manager it ends the emulator, whatever happens."""

    def __init__(self, folder: Path, schedules: Sequence[Schedule]) -> None:
        self._folder = folder
        self._schedules = schedules
        # Files, not pipes: neither side ever waits for the other to read.
        self._answers = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        with tempfile.TemporaryFile("w+") as questions:
            questions.writelines(one.erlang(number) for number, one in enumerate(schedules))
            questions.seek(0)
            # One scheduler: see the reference's own text.
            command = ["erl", "+S", "1", "+sbwt", "none", "-noshell", "-boot", "start_clean"]
            command += ["-kernel", "logger_level", "none", "-pa", str(folder), "-run", "otp_reference", "main"]
            self._process = subprocess.Popen(
                command, stdin=questions, stdout=self._answers, stderr=subprocess.PIPE, text=True
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=60)
        self._answers.close()

    def traces(self, *, timeout: float = 1800.0) -> list[list[str]]:
        """Wait for the end; the traces, in the order of the schedules."""
        _, errors = self._process.communicate(timeout=timeout)
        self._answers.seek(0)
        found: dict[int, list[str]] = {}
        late: list[int] = []
        for line in self._answers:
            number, status, *events = line.rstrip("\n").split("\t")
            if number == "error":
                raise AssertionError(f"the reference itself failed: {status}")
            if status == "late":
                late.append(int(number))
            found[int(number)] = events
        missing = [number for number in range(len(self._schedules)) if number not in found]
        assert not self._process.returncode, f"the reference ended with {self._process.returncode}: {errors[-2000:]}"
        assert not missing, f"the reference left no trace of {missing[:10]}: {errors[-2000:]}"
        if late:
            # This machine was so slow that a window passed by itself. The second time they have it to themselves.
            with Running(self._folder, [self._schedules[number] for number in late]) as again:
                for number, events in zip(late, again.traces(timeout=timeout), strict=True):
                    found[number] = events
        return [found[number] for number in range(len(self._schedules))]
