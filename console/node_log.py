"""What a node says on its terminal while it runs: who came, who left, what it started."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class _Line(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        from rich.markup import escape

        style = "yellow" if record.levelno >= logging.WARNING else ""
        text = escape(record.getMessage())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        self._console.print(f"[bright_black]{clock}[/] " + (f"[{style}]{text}[/]" if style else text), soft_wrap=True)


def narrate(console: Console) -> None:
    """Print what the cluster's actors log, from now on."""
    logger = logging.getLogger("palmette.actors.cluster")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Line(console))
