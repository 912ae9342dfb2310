"""The runner's side of a keeper: to fork it with its first job, and to give it the next ones.

To fork a Python process takes a millisecond, and the like again for the pages that both then write to. So a keeper
whose job has left nothing behind is given the next: what to run, and on which descriptors, comes over a socket.
"""

import array
import json
import os

# Not socket: that brings forty modules into every machine, and this is all that is needed of it.
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socketpair,
)
from _socket import socket as Socket

from palmette.machines.runner.keeper import Launch, complain, keep
from palmette.machines.runner.loop import Loop

_LARGEST = 1 << 16
"""Bytes of orders. What is longer (and what is a chore) takes a new keeper, which has it from its birth."""
_DESCRIPTORS = 4


class Keeper:
    """A keeper process that runs ``what``.

    Raises:
        OSError: no descriptors or processes are left; nothing is left of it.
    """

    def __init__(self, loop: Loop, what: Launch) -> None:
        self._loop = loop
        self._orders, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        loop.owned.update((self._orders.fileno(), theirs.fileno()))
        self.report = report = -1
        """Where lines of JSON come from."""
        try:
            self.report, report = loop.pipe()
            os.set_blocking(self.report, False)
            spared = {what.cwd, what.stdin, what.stdout, what.stderr, theirs.fileno(), report}
            runner = os.getpid()
            self.pid = os.fork()
            if self.pid == 0:
                try:
                    for fd in loop.owned - spared:
                        os.close(fd)
                    keep(what, lambda: _receive(theirs), report, runner)
                    os._exit(0)
                except BaseException:  # noqa: BLE001 - a fork of the runner must not return into the runner's loop
                    complain()
                finally:
                    os._exit(70)
        except OSError:
            self.close()
            raise
        finally:
            loop.owned.discard(theirs.fileno())
            theirs.close()
            if report >= 0:
                loop.close(report)

    def run(self, what: Launch) -> bool:
        """Have it run ``what`` next, its last job being gone. ``False``: it cannot, and takes another keeper."""
        if what.chore is not None:
            return False
        orders = json.dumps((what.argv, what.env, what.limits, what.terminal, what.acknowledge)).encode("ascii")
        if len(orders) > _LARGEST:
            return False
        descriptors = array.array("i", (what.cwd, what.stdin, what.stdout, what.stderr))
        try:
            self._orders.sendmsg([orders], [(SOL_SOCKET, SCM_RIGHTS, descriptors)], MSG_DONTWAIT)
        except OSError:  # a command has killed it
            return False
        return True

    def close(self) -> None:
        """It is not needed any more, and ends."""
        self._loop.owned.discard(self._orders.fileno())
        self._orders.close()
        if self.report >= 0:
            self._loop.close(self.report)


def _receive(orders: Socket) -> "Launch | None":
    data, ancillary, _, _ = orders.recvmsg(_LARGEST, CMSG_SPACE(_DESCRIPTORS * 4), MSG_CMSG_CLOEXEC)
    if not data:
        return None
    argv, env, limits, terminal, acknowledge = json.loads(data.decode("ascii"))
    what = Launch(argv, env, limits)
    what.terminal, what.acknowledge = terminal, acknowledge
    what.cwd, what.stdin, what.stdout, what.stderr = array.array("i", ancillary[0][2])
    return what
