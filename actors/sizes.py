"""Sizes in bytes, as people write them: ``512m``, ``40GiB``, ``1.5TB``.

A letter alone counts in powers of 1024, as Docker has it, and so does one with ``iB`` behind it; with ``B`` alone it
counts in powers of 1000, as the makers of disks and GPUs have it.

>>> parse_size("40GiB"), parse_size("512m"), parse_size("80GB")
(42949672960, 536870912, 80000000000)
>>> size_text(40 << 30), size_text(1536), size_text(1000)
('40GiB', '1536B', '1000B')
"""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_LETTERS: Final = "kmgt"


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError, with what would have been right."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"a size is a number with a unit after it, such as 512m, 40GiB or 80GB, got {text!r}")
    number, letter, rest = match.groups()
    power = _LETTERS.index(letter.lower()) + 1 if letter else 0
    base = 1000 if rest and rest.lower() == "b" else 1024
    return int(float(number) * base**power) if "." in number else int(number) * base**power


def size_text(size: int) -> str:
    """The shortest text that :func:`parse_size` reads back."""
    for power in range(len(_LETTERS), 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_LETTERS[power - 1].upper()}iB"
    return f"{size}B"
