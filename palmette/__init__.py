"""Actor-model supervision, in the Erlang/OTP style, for agent software and agentic reinforcement learning.

The names here are those that nearly every program needs; each folder (``palmette.machines``,
``palmette.benchmarks``, …) has a door of its own. Names are loaded on first use, so that ``import palmette`` costs
next to nothing.

>>> from palmette import Actor, System, Supervisor, child, endpoint
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palmette.actors import Actor, Ref, System, endpoint, needs
    from palmette.supervisors import Backoff, DynamicSupervisor, Supervisor, child

__version__ = "0.1.0"

__all__ = ["Actor", "Backoff", "DynamicSupervisor", "Ref", "Supervisor", "System", "child", "endpoint", "needs"]

_HOMES = {
    "Actor": "palmette.actors",
    "Backoff": "palmette.supervisors",
    "DynamicSupervisor": "palmette.supervisors",
    "Ref": "palmette.actors",
    "Supervisor": "palmette.supervisors",
    "System": "palmette.actors",
    "child": "palmette.supervisors",
    "endpoint": "palmette.actors",
    "needs": "palmette.actors",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'palmette' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
