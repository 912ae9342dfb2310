"""Where the house's rooms are, for the tests that look at its source."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FLOORS = ("console", "trainers", "benchmarks", "agents", "machines", "supervisors", "actors")
"""From top to bottom: a floor imports from itself and from those below."""


def modules(*folders: str) -> list[Path]:
    """Python files in ``folders`` (all floors and the public face, where none are named), sorted."""
    chosen = folders or ("palmette", *FLOORS)
    # `palmette/` holds links to the floors: they are visited once, under their own names.
    return sorted(
        path
        for folder in chosen
        for path in (ROOT / folder).rglob("*.py")
        if not (folder == "palmette" and path.parent != ROOT / "palmette")
    )


def room(path: Path) -> str:
    """``path`` as people say it: ``actors/cell.py``."""
    return str(path.relative_to(ROOT))
