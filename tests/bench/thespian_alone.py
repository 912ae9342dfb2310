"""Thespian without palmette, as a companion program (see :mod:`tests.bench.companions`)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false

from __future__ import annotations

import socket
import sys
import time
from datetime import timedelta

from thespian.actors import ActorSystem, ActorTypeDispatcher

PATIENCE = timedelta(seconds=30)


class Echo(ActorTypeDispatcher):
    """Sends back what it gets."""

    def receiveMsg_int(self, message: int, sender: object) -> None:
        self.send(sender, message)


def main() -> None:
    """Serve until the input ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    system = ActorSystem("multiprocTCPBase", {"Admin Port": port})
    try:
        echo = system.createActor(Echo)
        assert system.ask(echo, 0, PATIENCE) == 0
        for line in sys.stdin:
            what, units = line.split()
            begun = time.perf_counter()
            for number in range(int(units)):
                if what == "start":
                    echo = system.createActor(Echo)
                assert system.ask(echo, number, PATIENCE) == number
            print((time.perf_counter() - begun) / int(units), flush=True)
    finally:
        system.shutdown()


if __name__ == "__main__":
    main()
