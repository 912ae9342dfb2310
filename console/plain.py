"""Text from agents, tools and tracebacks, made safe to show to people.

What an agent's command prints ends up in reasons and log lines. A stray escape sequence in it could repaint
the terminal or its title, so every control character is replaced before anything is shown.

>>> one_line("boom\\x1b[2J\\n  at line 3", 40)
'boom�[2J at line 3'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import ConsoleOptions
from rich.segment import Segment

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_ASCII = str.maketrans({"…": "~", "·": "-", "—": "-", "–": "-", "→": ">", "×": "x"})


def printable(text: str) -> str:
    """``text`` with control characters, direction overrides and lone surrogates replaced; newlines stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str, width: int) -> str:
    """``text`` as one line of at most ``width`` terminal cells: white space folded, an ellipsis at a cut."""
    line = " ".join(printable(text).split())
    if cell_len(line) <= width:
        return line
    if width < 1:
        return ""
    return set_cell_size(line, width - 1).rstrip() + "…"


def path_tail(path: str, width: int) -> str:
    """``path`` in at most ``width`` cells; where it is longer its beginning gives way, at a ``/`` if possible.

    >>> path_tail("/training/rollouts/episodes/*/agent", 24)
    '…/episodes/*/agent'
    """
    line = one_line(path, 1 << 16)
    if cell_len(line) <= width:
        return line
    parts = line.split("/")
    for first in range(1, len(parts)):
        shorter = "…/" + "/".join(parts[first:])
        if cell_len(shorter) <= width:
            return shorter
    return one_line(parts[-1], width)


def legible(segments: Iterable[Segment], options: ConsoleOptions) -> Iterator[Segment]:
    """``segments`` as a terminal without Unicode can show them; unchanged where it can."""
    for segment in segments:
        if options.ascii_only and not segment.control:
            text = segment.text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
            yield Segment(text, segment.style)
        else:
            yield segment


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3:07``, ``1:02:45``.

    >>> duration(187.2), duration(0.42)
    ('3:07', '0.4 s')
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def count(number: int, noun: str) -> str:
    """``1 restart``, ``1,204 restarts``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
