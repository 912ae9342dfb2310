"""A job, as the runner sees it: its keeper, its pipes, its deadline.

Output goes one of two ways. *Kept*: at most so many bytes of each stream, the head as it comes, the tail at the end,
so that a flood does not cross the channel. *By credit*: all of it, as fast as its reader takes it; a command whose
output is not read is held up.

How a job ends: its first process does, or its deadline or a request ends it. What still runs then is killed at once,
except that who holds the output has :data:`GRACE` to end by itself. When its keeper says that nothing is left, what
is in the pipes is sent, and the end.
"""

import fcntl
import json
import os
import signal
import struct
import termios
import time
from collections.abc import Callable
from functools import partial

from palmette.machines.capture import Tail
from palmette.machines.runner import wire
from palmette.machines.runner.gauges import Gauges, disk_full
from palmette.machines.runner.keeper import Launch
from palmette.machines.runner.keepers import Keeper
from palmette.machines.runner.loop import Loop
from palmette.machines.runner.processes import KILL_DEADLINE, send

GRACE = 0.1
"""Seconds for what outlives the command and holds its output (``tee`` in a process substitution) to end by itself."""
_DRAIN = 1 << 21
"""Bytes read from a pipe after everything is dead: more than any pipe holds, so that only a survivor can fill it."""
_NEVER = float("inf")


class Job:
    """One command, or chore, that runs."""

    def __init__(
        self,
        number: int,
        *,
        loop: Loop,
        gauges: Gauges,
        timeout: float,
        keep: "int | None",
        kill_strays: "Callable[[], int]",
    ) -> None:
        self.number = number
        self.keeper: Keeper | None = None
        """Once it was started."""
        self._keeper_died = False
        self._was_killed = False
        self.done = False
        self._loop = loop
        self._gauges = gauges
        self._counted = gauges.read()
        self._kill_strays = kill_strays
        self._keep = keep
        self._credit = wire.OUTPUT_WINDOW
        self._readers: dict[int, int] = {}
        self._heads = {wire.OUT: (keep or 0) // 2, wire.ERR: (keep or 0) // 2}
        self._tails = {kind: Tail((keep or 0) - (keep or 0) // 2) for kind in self._heads}
        self._stdin = -1
        self._terminal = False
        self._input = bytearray()
        self._input_ends = False
        self._input_taken = 0
        self._report_text = b""
        self._status: int | None = None
        self._failed: dict[str, object] | None = None
        self._left = 0
        self._timed_out = False
        self._held = False
        self._killing = False
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self.due = self._deadline
        """When :meth:`expire` wants to be called."""

    def start(
        self,
        what: Launch,
        keepers: "list[Keeper]",
        *,
        data: "bytes | None",
        size: "list[int] | None",
        stream: bool,
    ) -> None:
        """Start it, with one of ``keepers`` if that will do, which is taken out of them.

        ``data`` is the input, or its beginning (``stream``); a ``size`` gives it a terminal.

        Raises:
            OSError: no descriptors or processes are left; nothing is left of it.
        """
        loop = self._loop
        theirs: list[int] = []
        try:
            if size is not None:
                master, slave = os.openpty()
                theirs.append(slave)
                self._stdin = os.dup(master)
                loop.owned.update((master, slave, self._stdin))
                self._terminal = True
                self._readers[master] = wire.OUT
                self.resize(size)
                what.stdin = what.stdout = what.stderr = slave
                what.terminal = True
            else:
                if data is None and not stream:
                    what.stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                    loop.owned.add(what.stdin)
                else:
                    what.stdin, self._stdin = loop.pipe()
                theirs.append(what.stdin)
                ours, what.stdout = loop.pipe()
                self._readers[ours] = wire.OUT
                theirs.append(what.stdout)
                ours, what.stderr = loop.pipe()
                self._readers[ours] = wire.ERR
                theirs.append(what.stderr)
            for fd in (*self._readers, self._stdin):
                if fd >= 0:
                    os.set_blocking(fd, False)
            self.keeper = keepers.pop() if keepers and keepers[-1].run(what) else Keeper(loop, what)
        except OSError:
            self._close()
            raise
        finally:
            for fd in theirs:
                loop.close(fd)
        loop.watch(self.keeper.report, self._reported)
        self._watch_output()
        if self._stdin >= 0:
            self._input_ends = not stream
            self._input += data or b""
            self._write()

    def feed(self, data: bytes) -> None:
        """More input."""
        if self._stdin >= 0:
            self._input += data
            self._write()

    def close_input(self) -> None:
        """No more input. At a terminal that is what Ctrl-D does."""
        if self._stdin >= 0:
            if self._terminal:
                self._input += b"\x04"
            else:
                self._input_ends = True
            self._write()

    def resize(self, size: "list[int]") -> None:
        """Of the terminal, if there is one."""
        if self._terminal and self._stdin >= 0:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))

    def give_credit(self, taken: int) -> None:
        """The reader took this many bytes."""
        held_up = self._credit <= 0
        self._credit += taken
        if held_up and self._credit > 0:
            self._watch_output()

    @property
    def frees_keeper(self) -> bool:
        """Whether its keeper may have another job, this one being done: nothing is left, no signal is under way."""
        return not (self._keeper_died or self._was_killed or self._left)

    @property
    def pid(self) -> int:
        """Of its keeper."""
        assert self.keeper is not None, "it was started"
        return self.keeper.pid

    def kill(self) -> None:
        """With all that it started."""
        if not self._killing:
            self._killing = self._was_killed = True
            self.due = self._loop.now + KILL_DEADLINE + 1.0
            send(self.pid, signal.SIGUSR1)
            send(self.pid, signal.SIGCONT)  # a command may have stopped it

    def expire(self) -> None:
        """Its time has come."""
        if not self._killing:
            if self._status is None:
                self._timed_out = True
            else:
                self._held = bool(self._readers)
            self.kill()
            return
        # The keeper says nothing: killed, its children become the runner's.
        send(self.pid, signal.SIGKILL)
        self._keeper_gone()

    def _watch_output(self) -> None:
        for fd in self._readers:
            self._loop.watch(fd, partial(self._read, fd), vital=False)

    def _read(self, fd: int) -> bool:
        """One piece; whether there may be more at once."""
        room = wire.PIECE if self._keep is not None or self._status is not None else min(wire.PIECE, self._credit)
        if room <= 0:
            return False
        try:
            chunk = os.read(fd, room)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that nobody has open any more
            chunk = b""
        kind = self._readers[fd]
        if not chunk:
            del self._readers[fd]
            self._loop.close(fd)
            if not self._readers:
                if self._keep is None:
                    self._loop.send(wire.OUTPUT_ENDED, self.number)
                if self._status is not None:
                    self.kill()
            return False
        if self._keep is None:
            self._credit -= len(chunk)
            self._loop.send(kind, self.number, chunk)
            if self._credit <= 0:
                for other in self._readers:
                    self._loop.unwatch(other)
            return True
        head = self._heads[kind]
        if head:
            self._heads[kind] = max(0, head - len(chunk))
            self._loop.send(kind, self.number, chunk[:head])
            chunk = chunk[head:]
        self._tails[kind].feed(chunk)
        return True

    def _write(self) -> None:
        while self._input:
            try:
                taken = os.write(self._stdin, self._input[: wire.PIECE])
            except BlockingIOError:
                break
            except OSError:  # it does not want to read (any more), which is its right
                self._loop.send(wire.STDIN_GONE, self.number)
                self._close_stdin()
                return
            del self._input[:taken]
            self._input_taken += taken
        if self._input_taken >= wire.PIECE or not self._input:
            self._loop.send(wire.STDIN_TAKEN, self.number, b"%d" % self._input_taken)
            self._input_taken = 0
        if self._input:
            self._loop.watch(self._stdin, self._write, write=True)
        elif self._input_ends:
            self._close_stdin()
        else:
            self._loop.unwatch(self._stdin)

    def _close_stdin(self) -> None:
        self._loop.close(self._stdin)
        self._stdin = -1
        self._input.clear()

    def _reported(self) -> None:
        assert self.keeper is not None, "it was started"
        try:
            text = os.read(self.keeper.report, 1 << 12)
        except BlockingIOError:
            return
        if not text:
            self._keeper_gone()
            return
        *lines, self._report_text = (self._report_text + text).split(b"\n")
        for line in lines:
            message = json.loads(line.decode("ascii"))
            if "failed" in message:
                self._failed = message
            elif "started" in message and self._failed is None:
                self._loop.send(wire.STARTED, self.number)
            if "status" in message:
                self._status = message["status"]
                self._after_exit(message["gone"])
            self._left = message.get("left", 0)
            if message.get("gone") or self._left:
                self._finish()
                return

    def _after_exit(self, gone: bool) -> None:
        if gone or self._killing:
            return
        for fd in list(self._readers):  # its last words are in the pipes by now
            room = _DRAIN
            while room > 0 and fd in self._readers and self._credit > 0 and self._read(fd):
                room -= wire.PIECE
        if self._readers:
            self.due = min(self._deadline, self._loop.now + GRACE)
        else:
            self.kill()

    def _keeper_gone(self) -> None:
        self._keeper_died = True
        self._left = self._kill_strays()
        self._finish()

    def _finish(self) -> None:
        """Nothing of it lives: the last of its output, and its end."""
        if self.done:
            return
        self.done = True
        self.due = _NEVER
        self._killing = True
        for fd in list(self._readers):
            room = _DRAIN
            while room > 0 and fd in self._readers and self._read(fd):
                room -= wire.PIECE
        self._held = self._held or bool(self._readers)
        for kind, tail in self._tails.items():
            value = tail.value()
            for at in range(0, len(value), wire.PIECE):
                self._loop.send(kind, self.number, value[at : at + wire.PIECE])
        self._close()
        self._loop.send(wire.ENDED, self.number, json.dumps(self._ending()).encode("ascii"))

    def _ending(self) -> "dict[str, object]":
        status = self._status
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        kills, refusals = self._gauges.read()
        evidence = None
        if self._keeper_died:
            number = number or (int(signal.SIGKILL) if code is None else None)
            evidence = "runner_killed"
        elif self._timed_out or self._failed is not None:
            pass
        elif kills > self._counted[0] and (number == signal.SIGKILL or code not in (0, None)):
            evidence = "out_of_memory"
        elif code != 0 and refusals > self._counted[1]:
            evidence = "too_many_processes"
        elif code != 0 and disk_full("."):
            evidence = "disk_full"
        return {
            "code": code,
            "signal": number,
            "timed_out": self._timed_out,
            "held": self._held,
            "left_out": sum(tail.left_out for tail in self._tails.values()) if self._keep is not None else 0,
            "duration": time.monotonic() - self._began,
            "failed": self._failed,
            "left": self._left,
            "evidence": evidence,
        }

    def _close(self) -> None:
        for fd in (*self._readers, self._stdin):
            if fd >= 0:
                self._loop.close(fd)
        self._readers, self._stdin = {}, -1
