"""The far end of an e2b channel: it runs a program, and carries its bytes over what E2B's commands are.

E2B gives a command's output as text (undecodable bytes are replaced), says nothing twice to a client whose
connection broke, and holds the command up, or drops its output, as whether anybody listens. So this file, which
:mod:`palmette.machines.e2b.channel` sends along as the command, stands between: output goes out as lines of base64
with their place in the stream and stays kept until it is acknowledged, input comes in as numbered frames, of which
those seen before are dropped. Both sides count what the other has taken, so that no request ever waits for the program.

Python 3.6 and its library only: it runs in the sandbox (annotations within functions are not evaluated there). On
SIGTERM it kills the program.
"""

import base64
import collections
import os
import signal
import struct
import subprocess
import sys
import threading
import time

FRAME = struct.Struct(">BQI")
"""Of a frame to here: its kind, a place in a stream, the length of what follows."""
DATA = 1  # input that starts at this place
TAKEN = 2  # output up to this place has arrived
RESUME = 3  # the connection was lost: go on from this place
WINDOW = 1 << 22
"""Bytes under way, in each direction, that the other side has not taken."""
PIECE = 1 << 16
"""Bytes in one line of output."""
LINGER = 60.0
"""Seconds without a frame after which an ended program's last output is given up."""
GRACE = 0.5
"""Seconds without output after the program's end, after which what still holds its output open is not waited for."""
COMPLAINT = 2000
"""Bytes of standard error that may wait to be sent; only the last of it is of interest."""
LABEL = "PALMETTE_RELAY"
"""In this process's environment, not in the program's: the machine that it belongs to."""


class Relay:
    """One program. Each thread does one blocking thing, and tells the others by ``changed``."""

    def __init__(self, mark: str, argv: "list[str]") -> None:
        self.mark = mark.encode("ascii")
        self.changed = threading.Condition()
        environment = {name: value for name, value in os.environ.items() if name != LABEL}
        # Its standard error is not ours: E2B tells the end of a command only once nobody holds its streams.
        pipe = subprocess.PIPE
        self.program = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=environment)
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        assert self.program.stderr is not None
        self.complaints = self.program.stderr
        self.to_program = self.program.stdin
        self.from_program = self.program.stdout
        self.inbox: collections.deque[bytes] = collections.deque()
        self.received = 0  # of the input
        self.taken = 0
        self.taken_told = 0
        self.closed = False
        self.kept = bytearray()
        self.first = 0  # place of kept[0] in the output
        self.cursor = 0  # what is to be sent next
        self.report_due = False
        self.complained = b""
        self.code: int | None = None
        self.heard = time.monotonic()

    def run(self) -> int:
        """Until the program has ended and its output has arrived; its exit code, as a shell would say it."""
        signal.signal(signal.SIGTERM, self.on_terminate)
        works = (self.listen, self.feed, self.emit, self.pump, self.hear_complaints)
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        code = self.program.wait()
        with self.changed:
            self.heard = grown = time.monotonic()
            size = self.first + len(self.kept)
            while any(thread.is_alive() for thread in threads[3:]) and not self.given_up():
                self.changed.wait(GRACE / 5)
                if len(self.kept) >= WINDOW or self.first + len(self.kept) > size:
                    grown, size = time.monotonic(), self.first + len(self.kept)
                elif time.monotonic() - grown > GRACE:
                    break  # what the program started holds its output open, and is silent
            self.code = code if code >= 0 else 128 - code
            self.changed.notify_all()
            while not self.given_up():
                self.changed.wait(1.0)
        return self.code

    def given_up(self) -> bool:
        """Whether nobody waits for the program any more."""
        return self.closed or time.monotonic() - self.heard > LINGER

    def on_terminate(self, number: int, stack: object) -> None:
        self.program.kill()
        os._exit(1)

    def listen(self) -> None:
        """Frames from the controller."""
        source = sys.stdin.buffer
        while True:
            head = source.read(FRAME.size)
            if len(head) < FRAME.size:
                break
            kind, place, length = FRAME.unpack(head)
            data = source.read(length)
            if len(data) < length:
                break
            with self.changed:
                self.heard = time.monotonic()
                if kind == DATA and place <= self.received:
                    data = data[self.received - place :]
                    self.received += len(data)
                    self.inbox.append(data)
                elif kind in (TAKEN, RESUME) and self.first <= place <= self.first + len(self.kept):
                    del self.kept[: place - self.first]
                    self.first = place
                    self.cursor = max(self.cursor, place)
                    if kind == RESUME:
                        self.cursor = place
                        self.report_due = True
                self.changed.notify_all()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def feed(self) -> None:
        """Input to the program."""
        target = self.to_program.fileno()
        while True:
            with self.changed:
                while not self.inbox and not self.closed:
                    self.changed.wait()
                if not self.inbox:
                    break
                data = self.inbox.popleft()
            size = len(data)
            try:
                while data:
                    data = data[os.write(target, data) :]
            except OSError:
                pass  # it reads no more: the rest is dropped, as by a pipe that nobody reads
            with self.changed:
                self.taken += size
                self.changed.notify_all()
        self.to_program.close()

    def pump(self) -> None:
        """Output of the program, into what is kept."""
        source = self.from_program.fileno()
        while True:
            data = os.read(source, PIECE)
            if not data:
                return
            with self.changed:
                while len(self.kept) >= WINDOW:
                    self.changed.wait()
                self.kept += data
                self.changed.notify_all()

    def hear_complaints(self) -> None:
        """Its standard error, as far as anybody wants to know."""
        while True:
            data = os.read(self.complaints.fileno(), PIECE)
            if not data:
                return
            with self.changed:
                self.complained = (self.complained + data)[-COMPLAINT:]
                self.changed.notify_all()

    def emit(self) -> None:
        """Lines to the controller: mark, place, input taken, exit code once there is one, output, complaints."""
        ended_told = False
        while True:
            with self.changed:
                while True:
                    start = self.cursor - self.first
                    piece = bytes(self.kept[start : start + PIECE])
                    ended = self.code is not None and start + len(piece) == len(self.kept)
                    behind = self.taken - self.taken_told >= WINDOW // 4
                    if piece or behind or self.report_due or self.complained or (ended and not ended_told):
                        break
                    self.changed.wait()
                place, taken, complained = self.cursor, self.taken, self.complained
                code = str(self.code) if ended else "-"
                self.cursor += len(piece)
                self.taken_told = taken
                self.report_due = False
                self.complained = b""
                ended_told = ended
            line = b"<%s %d %d %s " % (self.mark, place, taken, code.encode("ascii"))
            line += base64.b64encode(piece) + b" " + base64.b64encode(complained) + b"\n"
            while line:
                line = line[os.write(1, line) :]


if __name__ == "__main__":
    try:
        relay = Relay(sys.argv[1], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error}")
    os._exit(relay.run())  # the other threads may be blocked for good
