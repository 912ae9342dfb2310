"""Keep a runner in a machine: open sessions, judge why one ended, open the next.

::

    the session ended
    ├── the backend knows why               MachineLost with its evidence
    ├── somebody wrote into the channel     MachineLost: what is said there cannot be trusted
    └── the place is well                   a command killed the runner (``kill -9 -1``):
        ├── the third time within a minute  MachineLost
        └── else                            everything inside is killed, a new runner started; the commands that
                                            ran end with signal 9 and evidence ``runner_killed``

A daemon that is stopped, or a host that hangs, ends no channel. So a runner that somebody waits for is asked for a sign
of life every :data:`PULSE` seconds; when one is due the backend is asked how its place is, and when neither the backend
is content nor the runner has spoken meanwhile, the machine is lost: within the five seconds in which whoever waits is
to know. Where the backend is content the runner has :data:`SILENCE` seconds, for it may be starved by what it runs. A
turn of this side's clock that comes late does not count: who did not run cannot say that another did not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

from palmette.machines import bootstrap
from palmette.machines.backend import Backend, Place
from palmette.machines.errors import ImageUnusable, MachineError, MachineLost
from palmette.machines.evidence import Evidence
from palmette.machines.replies import KILLED
from palmette.machines.runner_records import Greeting
from palmette.machines.session import Session, SessionEnded

EXAMINE = 5.0
"""Seconds that a backend has to say how its place is."""
OPENING = 30.0
"""Seconds for a channel, and again for the runner's first word."""
PULSE = 0.75
"""Seconds that a runner has for a sign of life before its backend is asked."""
LAST_WORDS = 0.1
"""Seconds for what a runner said before its place was found to be unwell."""
SILENCE = 20.0
"""Seconds without a byte from a runner in a place that is well, after which it is taken for frozen."""
_WORD = b"palmette-lives"
KILLS = 3
PERIOD = 60.0
"""So many killed runners within so many seconds, and the machine is given up."""


class Connection:
    """The way to the runner of one machine."""

    def __init__(self, backend: Backend, machine: str, image: str) -> None:
        self._backend = backend
        self._machine = machine
        self._image = image
        self._session: Session | None = None
        self._kills: deque[float] = deque(maxlen=KILLS)
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: MachineLost | None = None
        self._still = 0
        self._place: Place | None = None
        self.greeting: Greeting | None = None

    async def open(self, place: Place) -> None:
        """Start the runner.

        Raises:
            ImageUnusable: the place is well, and no runner starts in it.
            MachineLost
        """
        self._place = place
        self._session = await self._open(place)
        self._tasks = [
            asyncio.create_task(work)
            for work in (self._watch(place), self._listen(place.lease), self._renew(place.lease))
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    async def session(self) -> Session:
        """The session that is open now, if need be the next.

        Raises:
            MachineLost
        """
        while True:
            if self._lost is not None:
                raise self._copy(self._lost)
            session = self._session
            assert session is not None, "open() came before"
            if not session.ended.done():
                return session
            await self.verdict(session)

    async def verdict(self, session: Session) -> Evidence:
        """What the end of ``session`` means, once a new one is open.

        Raises:
            MachineLost: the machine is lost.
        """
        if self._lost is not None:
            raise self._copy(self._lost)
        # Shielded: others wait for the same.
        try:
            return await asyncio.shield(session.verdict)
        except MachineLost as error:
            raise self._copy(error) from None

    async def examine(self) -> Evidence | None:
        """How the place is; in time, whatever the backend does."""
        try:
            async with asyncio.timeout(EXAMINE):
                return await self._backend.examine()
        except TimeoutError:
            return Evidence(cause="unknown", detail=f"the {self._backend.name} backend said nothing for {EXAMINE:g} s")
        except MachineLost as error:
            return error.evidence or Evidence(cause="unknown", detail=str(error))

    async def second_way(self) -> str | None:
        """Run a command without the runner: ``None`` when it ran, else what was seen. The caller sets a deadline."""
        channel = await self._backend.open_channel(["/bin/sh", "-c", f": ; echo {_WORD.decode()}"])
        try:
            seen = b""
            while len(seen) < 1000 and (piece := await channel.read()):
                seen += piece
            return None if _WORD in seen else (channel.complaint.strip() or seen.decode("utf-8", "replace"))[-300:]
        finally:
            await channel.close()

    async def close(self, why: MachineLost) -> None:
        """Everybody who waits, and who comes later, gets ``why``."""
        self._lose(why)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        session, self._session = self._session, None
        if session is not None:
            # Where it shares a file system with others it has to tidy up.
            temporary = self._place is not None and self._place.temporary
            await session.close(linger=EXAMINE if temporary else 0.0)

    @contextmanager
    def standing_still(self) -> Generator[None]:
        """While this lasts the runner may be silent: its place is frozen, for a snapshot."""
        self._still += 1
        try:
            yield
        finally:
            self._still -= 1
            if self._session is not None:
                self._session.heard_at = asyncio.get_running_loop().time()

    async def _open(self, place: Place) -> Session:
        try:
            async with asyncio.timeout(OPENING):
                channel = await self._backend.open_channel(bootstrap.command(self._machine))
        except TimeoutError:
            raise MachineLost(
                f"machine {self._machine}: no channel was opened within {OPENING:g} s", await self.examine()
            ) from None
        try:
            async with asyncio.timeout(OPENING):
                session, self.greeting = await Session.open(channel, bootstrap.payload(), self._machine, place)
        except TimeoutError:
            raise MachineLost(
                f"machine {self._machine}: its runner said nothing for {OPENING:g} s", await self.examine()
            ) from None
        except SessionEnded as error:
            evidence = await self.examine()
            if evidence is not None:
                raise MachineLost(f"machine {self._machine}: {error} before the runner started", evidence) from None
            complaint = channel.complaint.strip() or str(error)
            raise ImageUnusable(
                f"no runner starts in a machine of {self._image!r}: {complaint[-500:]!r}; it needs python3 (3.6 or "
                "newer) on its PATH: install it there, or take another image"
            ) from None
        if not self.greeting.shell:
            await session.close()
            raise ImageUnusable(f"the image {self._image!r} has no /bin/sh; take another one")
        return session

    async def _watch(self, place: Place) -> None:
        while True:
            session = self._session
            assert session is not None, "open() came before"
            await asyncio.shield(session.ended)
            if self._lost is not None:
                return
            try:
                evidence = await self._judge(session)
                await session.close()
                await self._backend.kill_all()
                following = await self._open(place)
            except MachineLost as error:
                self._lose(error)
                return
            except MachineError as error:  # it did start once
                self._lose(MachineLost(f"machine {self._machine}: {error}", KILLED))
                return
            self._session = following
            session.verdict.set_result(evidence)

    async def _judge(self, session: Session) -> Evidence:
        end = session.ended.result()
        if end.expired:  # whatever the place looks like by now: this is why
            raise MachineLost(
                f"machine {self._machine} is lost",
                Evidence(cause="expired", detail="nothing was heard of its controller for longer than the lease"),
            )
        evidence = await self.examine()
        if evidence is not None:
            raise MachineLost(f"machine {self._machine} is lost, {end.seen}", evidence)
        if end.forged:
            raise MachineLost(
                f"machine {self._machine} is lost: {end.seen}",
                Evidence(cause="runner_killed", detail="a command wrote into its channel", agents_doing=True),
            )
        if "Traceback" in session.complaint:
            raise MachineLost(
                f"machine {self._machine} is lost: its runner failed",
                Evidence(cause="unknown", detail=session.complaint.strip()[-1000:]),
            )
        now = asyncio.get_running_loop().time()
        self._kills.append(now)
        if len(self._kills) == KILLS and now - self._kills[0] < PERIOD:
            raise MachineLost(f"machine {self._machine}: {KILLS} runners were killed within a minute", KILLED)
        return KILLED

    async def _listen(self, lease: float) -> None:
        """Ask the runner for signs of life; see this module's text."""
        loop = asyncio.get_running_loop()
        idle = min(lease, SILENCE) / 3
        pulse = min(PULSE, idle)
        asked_last = -idle
        while True:
            session = await self.session()
            asked = loop.time()
            if session.is_awaited or asked >= asked_last + idle:
                asked_last = asked
                session.ping()
            await asyncio.wait([session.ended], timeout=pulse)
            was_late = loop.time() > asked + 1.5 * pulse
            if session.ended.done() or was_late or self._still or session.heard_at >= asked_last:
                continue
            await self._doubt(session)
            if not session.ended.done() and not self._still and asked - session.heard_at > SILENCE:
                session.abandon(f"the runner said nothing for {SILENCE:g} s")

    async def _doubt(self, session: Session) -> None:
        """Raises MachineLost: the place of a silent runner is not well."""
        heard_at = session.heard_at
        evidence = await self.examine()
        if evidence is not None:  # its last words may lie in the channel, and say more
            await asyncio.wait([session.ended], timeout=LAST_WORDS)
        if evidence is None or self._still or session.ended.done() or session.heard_at > heard_at:
            return
        silent = asyncio.get_running_loop().time() - heard_at
        raise MachineLost(f"machine {self._machine} is lost, its runner said nothing for {silent:.1f} s", evidence)

    async def _renew(self, lease: float) -> None:
        while True:
            await self._make_longer(lease)
            await asyncio.sleep(lease / 3)

    async def _make_longer(self, lease: float) -> None:
        try:
            async with asyncio.timeout(lease):
                await self._backend.renew(lease)
        except TimeoutError:
            detail = f"nobody answered for {lease:g} s when its life was to be made longer"
            raise MachineLost(f"machine {self._machine} is lost", Evidence(cause="expired", detail=detail)) from None

    def _lose(self, error: MachineLost) -> None:
        if self._lost is None:
            self._lost = error
        if self._session is not None:
            self._session.abandon("the machine is lost")
            verdict = self._session.verdict
            if not verdict.done():
                verdict.set_exception(self._lost)
                verdict.exception()  # whoever waits will see it; nobody has to

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, MachineLost):
                self._lose(error)
                return
            lost = MachineLost(f"machine {self._machine}: {type(error).__name__} in its own backend: {error}")
            lost.__cause__ = error
            self._lose(lost)

    def _copy(self, error: MachineLost) -> MachineLost:
        """For each who waits one of their own: a traceback belongs to one."""
        copy = MachineLost(str(error))
        copy.evidence = error.evidence
        copy.__cause__ = error
        return copy
