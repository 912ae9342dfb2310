"""A running command's control socket: one JSON line in, one JSON line out.

``{"verb": "tree"}``, ``{"verb": "status"}``, ``{"verb": "why", "path": "/pool"}`` and ``{"verb": "stop"}``; the answer
is a :class:`Reply`. For the socket itself see :mod:`palmette.actors.control_socket`.
"""

from __future__ import annotations

from typing import cast

import msgspec

from palmette.actors import PalmetteError, TreeNode
from palmette.actors.control_socket import ControlSocket, Why, why_of
from palmette.console.snapshot import Snapshot
from palmette.console.stage import Stage


class TreeVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="tree"):
    """The tree of what is alive."""


class StatusVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="status"):
    """What the live view shows."""


class WhyVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="why"):
    """Why an actor ended: by address, or by registered name."""

    path: str


class StopVerb(msgspec.Struct, frozen=True, tag_field="verb", tag="stop"):
    """Stop the run in order."""


Verb = TreeVerb | StatusVerb | WhyVerb | StopVerb
VERB = cast("type[Verb]", Verb)


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to any verb; ``error`` is a sentence for a person."""

    run: str = ""
    kind: str = "run"
    """``program`` where an agent program answers, which has some of the same verbs."""
    error: str = ""
    tree: TreeNode | None = None
    status: Snapshot | None = None
    why: Why | None = None


class Control(ControlSocket):
    """Serves the socket of one run."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.run)
        self._stage = stage

    async def answer(self, line: bytes) -> Reply:
        stage = self._stage
        try:
            verb = msgspec.json.decode(line, type=VERB)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Reply(run=stage.run, error=f"not a request ({error}); the verbs are tree, status, why and stop")
        system = stage.system
        match verb:
            case StopVerb():
                stage.stop()
                return Reply(run=stage.run)
            case StatusVerb():
                return Reply(run=stage.run, status=stage.snapshot)
            case _ if system is None:
                return Reply(run=stage.run, error=f"run {stage.run} is starting; ask again in a moment")
            case TreeVerb():
                return Reply(run=stage.run, tree=system.tree())
            case WhyVerb(path=name):
                try:
                    return Reply(run=stage.run, why=why_of(system, name))
                except PalmetteError as error:
                    return Reply(run=stage.run, error=str(error))
