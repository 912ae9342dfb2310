"""ray without palmette, as a companion program: an actor in another process (see :mod:`tests.bench.companions`)."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUntypedClassDecorator=false, reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import sys
import time

import ray


@ray.remote
class Echo:
    """Sends back what it gets, and counts what nobody waits for."""

    def __init__(self) -> None:
        self.count = 0

    def echo(self, message: bytes) -> bytes:
        return message

    def take(self, message: bytes) -> None:
        self.count += 1

    def taken(self) -> int:
        return self.count


def main() -> None:
    """Serve until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # ray has things to say
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=600 << 20)
    echo = Echo.remote()
    for line in sys.stdin:
        what, units = line.split()
        number = int(units)
        data = bytes(number if what == "payload" else 100)
        begun = time.perf_counter()
        if what == "call":
            for _ in range(number):
                ray.get(echo.echo.remote(b"x"))
        else:
            for done in range(number if what == "cast" else 1):
                echo.take.remote(data)
                if done % 1000 == 999:
                    ray.get(echo.taken.remote())  # it warns of more than a few thousand at once
            ray.get(echo.taken.remote())  # an actor works in order
        print((time.perf_counter() - begun) / (1 if what == "payload" else number), file=answers, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
