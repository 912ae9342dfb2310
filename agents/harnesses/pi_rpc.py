"""pi's RPC protocol: JSON lines both ways, split at LF only; commands are answered by id, events come in between."""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from palmette.agents.harnesses.errors import HarnessDied, HarnessError, HarnessHung
from palmette.agents.harnesses.program import end_of
from palmette.machines import Process

_MAX_LINE = 64 << 20
_SAID = 4000

Json = dict[str, object]


class PiProcess:
    """A running pi. One reader of :meth:`next`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._events: asyncio.Queue[Json] = asyncio.Queue()
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(), name="pi")

    async def ask(self, kind: str, *, seconds: float, **fields: object) -> Json:
        """One command; its answer.

        Raises:
            HarnessHung: none within ``seconds``.
            HarnessDied: pi has ended.
            HarnessError: pi says no.
        """
        number = f"r{next(self._numbers)}"
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        line = msgspec.json.encode({"id": number, "type": kind, **fields}) + b"\n"
        try:
            async with asyncio.timeout(seconds):
                await self.process.write(line)
                told = await answer
        except TimeoutError:
            raise HarnessHung(f"pi did not answer {kind!r} within {seconds:g} s") from None
        except BrokenPipeError:
            raise HarnessDied(f"pi {await self.end()}") from None
        finally:
            del self._answers[number]
        if told.get("success") is not True:
            raise HarnessError(f"pi refuses {kind!r}: {told.get('error')}")
        return told

    async def next(self) -> Json:
        """The next event. Raises HarnessDied where there is none any more."""
        return await self._events.get() if not self._events.empty() else await self._next()

    async def _next(self) -> Json:
        getting = asyncio.ensure_future(self._events.get())
        try:
            await asyncio.wait([getting, self._end], return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            raise HarnessDied(f"pi {self._end.result()}")
        finally:
            getting.cancel()

    async def end(self) -> str:
        """How it ended, once it has."""
        return await asyncio.shield(self._end)

    async def stop(self, grace: float) -> None:
        """End the run, then pi, and past ``grace`` seconds all that is left of it; what it started goes with it."""
        try:
            async with asyncio.timeout(grace):
                # Its own clean-up first: a tool's processes have sessions of their own. Its end of input is the request
                # to end.
                await self.process.write(b'{"type":"abort"}\n')
                await self.process.close_stdin()
                await asyncio.shield(self._end)
        except (TimeoutError, BrokenPipeError):
            pass
        finally:
            try:
                await self.process.kill()
                await self.process.wait()
            finally:
                self._reading.cancel()
                await asyncio.wait([self._reading])

    async def _read(self) -> None:
        rest, said = b"", b""
        try:
            while (piece := await self.process.read()) is not None:
                if piece[0] == "stderr":
                    said = (said + piece[1])[-_SAID:]
                    continue
                *lines, rest = (rest + piece[1]).split(b"\n")
                if len(rest) > _MAX_LINE:
                    raise HarnessError(f"pi wrote a line of more than {_MAX_LINE} bytes")
                for line in lines:
                    self._take(line)
            why = await end_of(self.process, said)
        except Exception as error:  # noqa: BLE001 - it is raised to whoever waits for pi
            self._fail_answers(error)
            self._end.set_exception(error)
            self._end.exception()  # nobody may be waiting just now
        except asyncio.CancelledError:
            self._fail_answers(HarnessDied("pi was stopped"))
            raise
        else:
            self._fail_answers(HarnessDied(f"pi {why}"))
            self._end.set_result(why)

    def _fail_answers(self, error: Exception) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    def _take(self, line: bytes) -> None:
        try:
            told = msgspec.json.decode(line, type=Json)
        except (msgspec.DecodeError, UnicodeError):
            return  # extensions and libraries print what they like
        number = told.get("id")
        if told.get("type") == "response" and isinstance(number, str):
            answer = self._answers.get(number)
            if answer is not None and not answer.done():
                answer.set_result(told)
        else:
            self._events.put_nowait(told)
