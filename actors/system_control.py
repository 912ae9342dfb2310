"""A control socket for any system: ``System.start(tree, control="name")``, and ``palmette tree name`` from elsewhere.

The verbs are ``tree``, ``why`` (with a ``path``), ``status`` and ``stop``; the answer is a :class:`SystemReply`. Runs
and agent programs have sockets of their own, which know more.
"""

from __future__ import annotations

import os
import time

import msgspec

from palmette.actors.control_socket import ControlSocket, Why, why_of
from palmette.actors.errors import PalmetteError
from palmette.actors.exits import Shutdown
from palmette.actors.introspection import SystemStatistics, TreeNode


class SystemVerb(msgspec.Struct, frozen=True, kw_only=True):
    """A request."""

    verb: str
    path: str = ""


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A system at a glance."""

    pid: int
    since: float
    """Seconds since the epoch."""
    statistics: SystemStatistics


class SystemReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to any verb; ``error`` is a sentence for a person."""

    run: str
    kind: str = "run"
    """``system`` in ours."""
    error: str = ""
    status: SystemStatus | None = None
    tree: TreeNode | None = None
    why: Why | None = None


class SystemControl(ControlSocket):
    """See the module's text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._run = name
        self._since = time.time()

    async def answer(self, line: bytes) -> SystemReply:
        system = self.system
        try:
            verb = msgspec.json.decode(line, type=SystemVerb)
            match verb.verb:
                case "tree":
                    return self._reply(tree=await system.full_tree())
                case "why":
                    return self._reply(why=why_of(system, verb.path))
                case "status":
                    status = SystemStatus(pid=os.getpid(), since=self._since, statistics=system.statistics())
                    return self._reply(status=status)
                case "stop":
                    root = system.slots["/"].target
                    if root is not None:
                        root.stop(Shutdown("asked to by palmette stop"))
                    return self._reply()
                case other:
                    return self._reply(error=f"no verb {other!r}; there are tree, why, status and stop")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._reply(error=f"not a request ({error})")
        except PalmetteError as error:
            return self._reply(error=str(error))

    def _reply(
        self,
        *,
        error: str = "",
        status: SystemStatus | None = None,
        tree: TreeNode | None = None,
        why: Why | None = None,
    ) -> SystemReply:
        return SystemReply(run=self._run, kind="system", error=error, status=status, tree=tree, why=why)
