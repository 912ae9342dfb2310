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


BATCH = 100
"""Messages that are sent before an answer is waited for: of more than some hundreds at once, a few get lost."""


class Echo(ActorTypeDispatcher):
    """Sends back what it gets, and counts bytes instead."""

    count = 0

    def receiveMsg_bytes(self, message: bytes, sender: object) -> None:
        self.count += 1

    def receiveMsg_str(self, message: str, sender: object) -> None:
        self.send(sender, self.count)

    def receiveMsg_int(self, message: int, sender: object) -> None:
        self.send(sender, message)


def cast(system: ActorSystem, echo: object, data: bytes, units: int, sent: int) -> int:
    """Send ``data`` so often, and wait until all has come; how many were sent so far."""
    for number in range(1, units + 1):
        system.tell(echo, data)
        if number % BATCH == 0 or number == units:
            while int(system.ask(echo, "count", PATIENCE) or 0) < sent + number:
                pass
    return sent + units


def main() -> None:
    """Serve until the input ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    system = ActorSystem("multiprocTCPBase", {"Admin Port": port})
    try:
        echo = system.createActor(Echo)
        assert system.ask(echo, 0, PATIENCE) == 0
        sent = 0
        for line in sys.stdin:
            what, units = line.split()
            begun = time.perf_counter()
            if what == "cast":
                sent = cast(system, echo, bytes(100), int(units), sent)
            elif what == "payload":
                sent = cast(system, echo, bytes(int(units)), 1, sent)
            else:
                for number in range(int(units)):
                    if what == "start":
                        echo = system.createActor(Echo)
                        sent = 0
                    assert system.ask(echo, number, PATIENCE) == number
            print((time.perf_counter() - begun) / (1 if what == "payload" else int(units)), flush=True)
    finally:
        system.shutdown()


if __name__ == "__main__":
    main()
