"""Run as a program by the fault tests: commits episodes for ever and prints what was acknowledged.

    PALMETTE_JOURNAL=URL journal_writer.py RUN [MOST_BYTES]

A line ``batch from to`` on standard output means: the commit of these episodes has returned. With ``MOST_BYTES`` no
file may grow beyond that (``RLIMIT_FSIZE``), and the program ends by printing the error.
"""

from __future__ import annotations

import os
import resource
import sys

from palmette.benchmarks import Scored
from palmette.benchmarks.errors import JournalError
from palmette.benchmarks.journal import EpisodeEnded, JournalStore


def main(run: str, most_bytes: str = "") -> None:
    store = JournalStore(os.environ["PALMETTE_JOURNAL"])
    done = len(store.finished(run))
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
    while True:
        upto = done + 1 + done % 7
        batch = [
            EpisodeEnded(
                run=run, task=f"t/{number}", sample=0, attempt=0, outcome=Scored(reward=1.0),
                answer=f"{number} " * 300, started=1.0, finished=2.0, seconds=1.0,
            )
            for number in range(done, upto)
        ]  # fmt: skip
        try:
            store.commit(batch)
        except JournalError as error:
            print(type(error).__name__, error, flush=True)
            store.close()
            return
        print("batch", done, upto, flush=True)
        done = upto


if __name__ == "__main__":
    main(*sys.argv[1:])
