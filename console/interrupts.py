"""Ctrl-C and its kin: the first asks for an orderly stop, the second kills what does not stop, the third is final."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Interrupts:
    """The signals of one run. ``code`` is the exit code that they ask for, ``None`` as long as there was none."""

    def __init__(self, *, on_first: Callable[[], None], on_second: Callable[[], None]) -> None:
        """Both are called on the event loop."""
        self.code: int | None = None
        self.came = asyncio.Event()
        self._actions = [on_first, on_second]

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """As if the signal had come."""
        if self.code is None:
            self.code = 128 + number
        self.came.set()
        if not self._actions:
            os._exit(self.code)  # somebody asked for the third time: nothing else is worth waiting for
        self._actions.pop(0)()

    @contextmanager
    def installed(self) -> Generator[None]:
        """Answer SIGINT, SIGTERM and SIGHUP inside the block. Only on the main thread."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.interrupt, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
