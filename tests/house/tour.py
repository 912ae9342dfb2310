"""README's tours as data: blocks, the commands in them, and what each is said to print."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[tuple[str, str, str]]:
    """The code blocks of a section: language, what else stands in the fence, and the text."""
    tour = (ROOT / "README.md").read_text().partition(f"## {section}")[2].partition("\n## ")[0]
    return [(language, options.strip(), body) for language, options, body in BLOCK.findall(tour)]


def sessions(body: str) -> list[tuple[str, str]]:
    """Commands with the output that the README shows for each."""
    sessions: list[tuple[str, str]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            sessions.append((line[2:], ""))
        else:
            command, output = sessions.pop()
            sessions.append((command, f"{output}{line}\n"))
    return sessions


def agrees(shown: str, printed: str) -> bool:
    """Whether what was printed is what is shown, ``...`` standing for any text."""
    parts = [re.escape(part.strip()) for part in shown.split("...")]
    return re.search(".*".join(parts), printed.strip(), re.DOTALL) is not None
