"""The pool: whoever wants episodes played asks it, and gets one result per episode, whatever happens.

It starts each episode's tree under the dynamic supervisor ``episodes``, at most ``concurrency`` at a time, and
watches it. An episode that ends by its evaluator has its outcome in the journal already; one whose tree gave up is
given the outcome that its exit reason stands for, here. An episode that the journal knows as ended is not played
again: its result is read back. Pool and ``episodes`` start over together: neither can make sense of what the other
has left behind, and the journal tells what is still to be done.

::

    BenchmarkError
    └── RunAborted         no further episode can do better: the pool crashes with it, and the run ends
    Refused (actors)
    ├── NoSuchTask         to whoever asked for the episode
    └── BenchmarkBroken    to an agent whose tools could not be made
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from palmette.actors import Actor, ActorDied, Down, MaxRestarts, NoProcess, Reason, Ref, Refused, Shutdown, endpoint
from palmette.benchmarks.episode import EpisodeRequest, EpisodeResult, EpisodeSettings
from palmette.benchmarks.errors import BenchmarkError
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import EpisodeEnded, EpisodeKey
from palmette.benchmarks.outcomes import InfraFailed, JudgeFailed, Outcome, Scored, Tally, Truncated, tally
from palmette.benchmarks.task import Transcript
from palmette.benchmarks.under_way import Answered, Begun, EpisodeOver, UnderWay, name_of, wait_for
from palmette.benchmarks.verdict import hopeless, outcome_of
from palmette.machines import Machine
from palmette.supervisors import DynamicSupervisor, StartRefused

STOP_SECONDS = 60.0
"""For an overdue episode's tree to end; then it is killed."""


class RunAborted(BenchmarkError):
    """No further episode can do better: the model says no to everybody, or could never be reached."""


class NoSuchTask(Refused):
    """The benchmark has no task of that id."""


class BenchmarkBroken(Refused):
    """The benchmark's own code raised while an agent's tools were made."""


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The pool at a glance."""

    running: int
    waiting: int
    ended: Tally
    """Of the episodes that ended since the pool started, and of those it read back."""


@contextmanager
def _extension(what: str) -> Generator[None]:
    """A benchmark's own code, run by the pool: what it raises is the asking agent's trouble, not everybody's."""
    try:
        yield
    except Exception as error:
        raise BenchmarkBroken(f"{what} raised {type(error).__name__}: {error}") from error


class EpisodePool(Actor):
    """See the module's text."""

    def __init__(self, settings: EpisodeSettings, concurrency: int) -> None:
        self._settings = settings
        self._concurrency = concurrency
        self._tasks = {task.id: task for task in settings.benchmark.tasks()}
        self._queue: deque[EpisodeRequest] = deque()
        self._running: dict[EpisodeKey, UnderWay] = {}
        self._wanted: dict[EpisodeKey, asyncio.Future[EpisodeResult]] = {}
        """The results to come, of episodes that run or wait."""
        self._monitored: dict[int, UnderWay] = {}
        self._ended: dict[EpisodeKey, EpisodeEnded] = {}
        self._attempts: dict[EpisodeKey, int] = {}
        self._tally = Tally()

    async def started(self) -> None:
        journal = self.system.whereis("journal", Journal)
        for ended in await journal.call(Journal.episodes):
            self._ended[EpisodeKey(ended.task, ended.sample)] = ended
        self._attempts = dict(await journal.call(Journal.attempts))
        self._tally = tally(ended.outcome for ended in self._ended.values())

    async def receive(self, message: object) -> None:
        if isinstance(message, Down):
            self._monitored.pop(message.monitor).end.set_result(message.reason)
        else:
            await super().receive(message)

    # --- for those who want episodes ---------------------------------------------------------------------------------

    @endpoint
    async def play(self, request: EpisodeRequest) -> EpisodeResult:
        """Play an episode (or read back one that has ended) and return how it went.

        It is played to its end also when whoever asked for it is gone.

        Raises:
            NoSuchTask: the benchmark does not know it.
        """
        if request.task not in self._tasks:
            raise NoSuchTask(f"{self._settings.benchmark.name} has no task {request.task!r}")
        ended = self._ended.get(request.key)
        if ended is not None:
            return self.answer_later(self._read_back(ended))
        result = self._wanted.get(request.key)
        if result is None:
            result = self._wanted[request.key] = self.system.loop.create_future()
            self._queue.append(request)
            self._fill()
        return self.answer_later(wait_for(result))

    @endpoint
    async def statistics(self) -> PoolStatistics:
        """The pool at a glance."""
        return PoolStatistics(running=len(self._running), waiting=len(self._queue), ended=self._tally)

    @endpoint
    async def running(self) -> list[str]:
        """The names of the episodes under way, oldest first."""
        return [episode.name for episode in self._running.values()]

    # --- for the parts of an episode ---------------------------------------------------------------------------------

    @endpoint
    async def begin(self, key: EpisodeKey, machine: Machine | None) -> Begun:
        """An agent sets out. What an earlier one answered is void.

        Raises:
            EpisodeOver, BenchmarkBroken
        """
        episode = self._under_way(key)
        episode.attempt += 1
        if episode.answered.done():
            episode.answered = self.system.loop.create_future()
        benchmark = self._settings.benchmark
        with _extension(f"{benchmark.name}.tools()"):
            tools = benchmark.tools(self._tasks[key.task].public(), machine)
        return Begun(attempt=episode.attempt, tools=tools)

    @endpoint
    async def answered(self, key: EpisodeKey, attempt: int, transcript: Transcript) -> None:
        """An agent is done.

        Raises:
            EpisodeOver: another attempt has begun, or all is over.
        """
        episode = self._under_way(key)
        if attempt != episode.attempt or episode.answered.done():
            raise EpisodeOver(f"{episode.name} is at attempt {episode.attempt}; this is of attempt {attempt}")
        episode.answered.set_result(Answered(transcript=transcript, attempt=attempt, seconds=episode.seconds))

    @endpoint
    async def wait_answered(self, key: EpisodeKey) -> Answered:
        """Wait for what the episode's agent makes of it.

        Raises:
            EpisodeOver: nothing, any more.
        """
        return self.answer_later(self._answer(self._under_way(key)))

    @endpoint
    async def judged(self, key: EpisodeKey, ended: EpisodeEnded) -> None:
        """An evaluator tells what the journal has. Raises EpisodeOver."""
        self._under_way(key).ended = ended

    def _under_way(self, key: EpisodeKey) -> UnderWay:
        episode = self._running.get(key)
        if episode is None:
            raise EpisodeOver(f"the episode {name_of(key)} is not under way")
        return episode

    async def _answer(self, episode: UnderWay) -> Answered:
        answered = await wait_for(episode.answered)
        if answered is None:
            raise EpisodeOver(f"{episode.name} ended without an answer")
        return answered

    # --- life of episodes --------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while self._queue and len(self._running) < self._concurrency:
            request = self._queue.popleft()
            episode = self._running[request.key] = UnderWay(request, self._attempts.get(request.key, 0))
            self.start_task(self._life(episode))

    async def _life(self, episode: UnderWay) -> None:
        """Play it, see to it that its outcome is durable, tell those who asked, and make room for the next."""
        outcome = await self._play(episode)
        ended = episode.ended
        if ended is None:
            if outcome is None:
                return
            ended = await self._record(episode, outcome)
        transcript = None
        if episode.work is not None and episode.work.attempt == ended.attempt:
            transcript = episode.work.transcript
        elif isinstance(ended.outcome, Scored | JudgeFailed):  # of an earlier attempt, whose end came first
            transcript = await self._transcript(ended)
        if not episode.answered.done():
            episode.answered.set_result(None)
        key = episode.request.key
        del self._running[key]
        self._ended[key] = ended
        self._attempts[key] = episode.attempt
        self._tally = tally_with(self._tally, ended.outcome)
        self._wanted.pop(key).set_result(_result(ended, transcript))
        self._fill()

    async def _play(self, episode: UnderWay) -> Outcome | None:
        """The outcome of an episode that no evaluator ended; ``None`` if one did, or if it stays open.

        Raises:
            RunAborted: no further episode can do better.
        """
        from palmette.benchmarks.episode_tree import episode_spec  # it imports this module

        settings, request = self._settings, episode.request
        episodes = self.system.whereis("episodes", DynamicSupervisor)
        spec = episode_spec(settings, self._tasks[request.task], request, episode.name)
        try:
            path = await episodes.call(DynamicSupervisor.start_child, spec)
        except StartRefused as refused:
            return InfraFailed(reason=str(refused))
        except ActorDied:
            return None  # the pool is about to follow; the episode was not begun
        tree: Ref[Actor] = self.system.ref_at(path, Actor)
        self._monitored[self.monitor(tree)] = episode
        try:
            async with asyncio.timeout(settings.seconds):
                reason = await wait_for(episode.end)
        except TimeoutError:
            await tree.terminate(Shutdown("overdue"), timeout=STOP_SECONDS)
            late = f"the episode's deadline of {settings.seconds:g} s"
            return Truncated(reason=late) if episode.work is None else JudgeFailed(reason=f"no verdict by {late}")
        if episode.ended is not None:
            return None
        return await self._broken_off(path, reason, episodes)

    async def _broken_off(self, path: str, reason: Reason, episodes: Ref[DynamicSupervisor]) -> Outcome | None:
        if isinstance(reason, NoProcess):  # it was over before it could be watched
            reason = next((record.reason for record in reversed(self.system.exits) if record.path == path), reason)
        if isinstance(reason, MaxRestarts):
            why = hopeless(reason, scored=self._tally.scored)
            if why is not None:
                raise RunAborted(why)
            return outcome_of(reason)
        # Its tree did not give up, it was ended: this one by somebody's wish, or all of them with their supervisor.
        # Then nothing is recorded: it is for the next pool, or the next run, to play it.
        try:
            await episodes.call(DynamicSupervisor.count_children)
        except ActorDied:
            return None
        return outcome_of(reason)

    async def _record(self, episode: UnderWay, outcome: Outcome) -> EpisodeEnded:
        """Make an outcome durable; returns what stands, which is an evaluator's verdict where one came first."""
        request, now = episode.request, time.time()
        ended = EpisodeEnded(
            run=self._settings.run,
            task=request.task,
            sample=request.sample,
            attempt=max(episode.attempt, 1),
            outcome=outcome,
            answer=None if episode.work is None else episode.work.transcript.answer,
            started=now - episode.seconds,
            finished=now,
            seconds=episode.seconds,
        )
        return await self.system.whereis("journal", Journal).call(Journal.end, ended)

    async def _read_back(self, ended: EpisodeEnded) -> EpisodeResult:
        finished = isinstance(ended.outcome, Scored | JudgeFailed | Truncated)
        return _result(ended, await self._transcript(ended) if finished else None)

    async def _transcript(self, ended: EpisodeEnded) -> Transcript:
        key = EpisodeKey(ended.task, ended.sample)
        turns = await self.system.whereis("journal", Journal).call(Journal.turns, key, ended.attempt)
        return Transcript(answer=ended.answer, turns=tuple(turns))


def _result(ended: EpisodeEnded, transcript: Transcript | None) -> EpisodeResult:
    return EpisodeResult(
        task=ended.task,
        sample=ended.sample,
        outcome=ended.outcome,
        transcript=transcript,
        attempts=ended.attempt,
        seconds=ended.seconds,
    )


def tally_with(so_far: Tally, outcome: Outcome) -> Tally:
    """``so_far`` and one more."""
    one = tally([outcome])
    return Tally(**{name: getattr(so_far, name) + getattr(one, name) for name in Tally.__struct_fields__})
