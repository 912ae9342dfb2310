"""One episode, as a tree::

    <task>+<sample>            rest_for_one, temporary
    ├── machine                permanent      the sandbox, its own or a pool's (benchmarks that need one)
    ├── agent                  transient      plays; its transcript goes to the pool
    └── evaluator              transient, significant      judges in the same machine; ends the episode

A new machine invalidates what was built on it, so agent and evaluator start over with it, also when the agent had
finished (``resurrect``): a verdict never rests on a sandbox that the agent did not work in. A crashed agent starts over
in the same machine, emptied. An agent that breaks its machine is not given another to break. What an episode that
cannot be saved counts as is :mod:`palmette.benchmarks.verdict`'s to say.

Only the evaluator holds the benchmark and the grader's half of the task. The agent is given its tools by the pool.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from palmette.actors import Actor, ActorDied, TaskDone, deadline
from palmette.agents.limiter import LimitedClient, Limiter
from palmette.agents.react import react
from palmette.benchmarks.episode import AgentSettings, EpisodeRequest, EpisodeSettings
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import AttemptStarted, EpisodeEnded, TurnSaid
from palmette.benchmarks.outcomes import Outcome, Truncated
from palmette.benchmarks.pool import EpisodePool
from palmette.benchmarks.task import Task, Turn
from palmette.benchmarks.verdict import BROKEN, HOPELESS
from palmette.machines import LeasedMachine, MachineActor, RemoteMachine
from palmette.supervisors import ChildSpec, Supervisor, child
from palmette.supervisors.policy import Directive

MARGIN: Final = 60.0
"""Seconds by which the deadlines of an episode's parts lie after the episode's own, which is the pool's to enforce."""
STOP_SECONDS: Final = 30.0
"""For a machine to kill its commands and remove what it made."""

EVALUATOR_RULES: Final[Mapping[str, Directive]] = {"retryable": "backoff"}
AGENT_RULES: Final[Mapping[str, Directive]] = {
    **EVALUATOR_RULES,
    **dict.fromkeys((*HOPELESS, "RequestRefused"), "escalate"),
}


MACHINE_RULES: Final[Mapping[str, Directive]] = {
    BROKEN: "escalate",
    # The pool has had its own patience: what it refuses is the episode's end.
    "NoMachine": "escalate",
    "ImageRefused": "escalate",
    "ProviderAbsent": "escalate",
}


class _Part(Actor, ABC):
    """What agent and evaluator share: one piece of work, done beside the mailbox, and then the end."""

    _machine: RemoteMachine | None = None

    async def continued(self) -> None:
        # Beside the mailbox, so that the actor can be looked at, paused and stopped while a model thinks.
        self.start_task(self._until_done(), tag="work")

    async def receive(self, message: object) -> None:
        match message:
            case TaskDone(value=ActorDied() as died):
                # A machine tells of its end before it has been taken down. Then the supervisor starts this over with
                # the next one; not before that with the same, as it would after a crash.
                self.send_after(STOP_SECONDS + MARGIN, died)
            case TaskDone():
                self.stop()
            case ActorDied():
                raise message
            case _:
                await super().receive(message)

    async def _until_done(self) -> ActorDied | None:
        try:
            await self.work()
        except ActorDied as died:
            if self._machine is None or died.path != self._machine.id:
                raise
            return died
        return None

    @abstractmethod
    async def work(self) -> None:
        """What this part of an episode does."""

    async def machine(self, *, needed: bool, pooled: bool) -> RemoteMachine | None:
        """The episode's machine, where it has one; a leased one may have to be waited for."""
        if needed and not pooled:
            self._machine = RemoteMachine(self.sibling("machine", MachineActor))
        elif needed:
            self._machine = RemoteMachine(await self.sibling("machine", LeasedMachine).call(LeasedMachine.machine))
        return self._machine


class AgentActor(_Part):
    """Plays the task. ``task`` is its public half. Crashes are its supervisor's business."""

    def __init__(self, settings: AgentSettings, task: Task, request: EpisodeRequest) -> None:
        self._settings = settings
        self._task = task
        self._request = request

    async def work(self) -> None:
        settings, task, request = self._settings, self._task, self._request
        pool = self.system.whereis("pool", EpisodePool)
        journal = self.system.whereis("journal", Journal)
        with deadline(settings.seconds + MARGIN):
            machine = await self.machine(needed=settings.needs_machine, pooled=settings.pooled)
            begun = await pool.call(EpisodePool.begin, request.key, machine)
            attempt, tools, client = begun.attempt, begun.tools, settings.client
            journal.cast(
                Journal.append,
                AttemptStarted(
                    run=settings.run, task=request.task, sample=request.sample, attempt=attempt, at=time.time()
                ),
            )
            if machine is not None:
                await machine.prepare(task.files)
            if settings.limiter is not None:
                client = LimitedClient(client, self.system.whereis(settings.limiter, Limiter), owner=self.ref)
            if settings.wrap_client is not None:
                client = settings.wrap_client(client, request.key, attempt)
            if settings.wrap_tools is not None:
                tools = settings.wrap_tools(tools, machine, request.key, attempt)

            def on_turn(turn: Turn) -> None:
                said = TurnSaid(run=settings.run, task=request.task, sample=request.sample, attempt=attempt, turn=turn)
                journal.cast(Journal.append, said)

            transcript = await react(
                task.prompt,
                client.session(request.task, seed=request.seed),
                tools,
                dialect=settings.dialect,
                turns=task.turns,
                limits=settings.limits,
                on_turn=on_turn,
            )
            await pool.call(EpisodePool.answered, request.key, attempt, transcript)


class EvaluatorActor(_Part):
    """Waits for the transcript, judges it, and has the outcome made durable before anybody is told."""

    def __init__(self, settings: EpisodeSettings, task: Task, request: EpisodeRequest) -> None:
        self._settings = settings
        self._task = task
        self._request = request

    async def work(self) -> None:
        settings, task, request = self._settings, self._task, self._request
        pool = self.system.whereis("pool", EpisodePool)
        journal = self.system.whereis("journal", Journal)
        with deadline(settings.seconds + MARGIN):
            answered = await pool.call(EpisodePool.wait_answered, request.key)
            transcript = answered.transcript
            if transcript.stop == "truncated":
                outcome: Outcome = Truncated(reason=transcript.reason)
            else:
                machine = await self.machine(needed=settings.benchmark.needs_machine, pooled=settings.pool is not None)
                outcome = await settings.benchmark.rubric(task).judge(task, transcript, machine)
            now = time.time()
            ended = EpisodeEnded(
                run=settings.run,
                task=request.task,
                sample=request.sample,
                attempt=answered.attempt,
                outcome=outcome,
                answer=transcript.answer,
                started=now - answered.seconds,
                finished=now,
                seconds=answered.seconds,
            )
            # An evaluator before this one may have died between the two calls: the pool is told what stands.
            standing = await journal.call(Journal.end, ended)
            await pool.call(EpisodePool.judged, request.key, standing)


def episode_spec(settings: EpisodeSettings, task: Task, request: EpisodeRequest, name: str) -> ChildSpec[Supervisor]:
    """The tree of one episode."""
    machine: ChildSpec[Actor]
    if settings.pool is None:
        machine = child(
            MachineActor, settings.machine, settings.run, name="machine", shutdown=STOP_SECONDS, rules=MACHINE_RULES
        )
    else:
        machine = child(LeasedMachine, settings.pool, name="machine", shutdown=STOP_SECONDS, rules=MACHINE_RULES)
    agent = child(
        AgentActor,
        settings.for_agent(),
        task.public(),
        request,
        name="agent",
        restart="transient",
        resurrect=True,
        backoff=settings.backoff,
        rules=AGENT_RULES,
    )
    evaluator = child(
        EvaluatorActor,
        settings,
        task,
        request,
        name="evaluator",
        restart="transient",
        significant=True,
        backoff=settings.backoff,
        rules=EVALUATOR_RULES,
    )
    return Supervisor.spec(
        name=name,
        strategy="rest_for_one",
        auto_shutdown="any_significant",
        restart="temporary",
        max_restarts=settings.max_restarts,
        max_seconds=settings.seconds + MARGIN,
        children=[machine, agent, evaluator] if settings.benchmark.needs_machine else [agent, evaluator],
    )
