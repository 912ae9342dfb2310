"""Faults on purpose, for the demo and for tests: crashed agents, destroyed sandboxes, killed processes.

Two kinds: *sabotage*, wrapped around an episode's model client and tools, fires on every n-th episode's first attempt;
the :class:`Chaos` actor kills the policy server and the trainer (``SIGKILL``), each once, when the training has reached
a given share of its steps. It writes each kill to the journal first, so that neither its own restart nor a resumed run
kills again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence

import msgspec

from palmette.actors import Actor
from palmette.agents.conversation import Completion, Message, ModelClient, Session, ToolSchema
from palmette.agents.tools import Tool
from palmette.benchmarks.journal.actor import Journal
from palmette.benchmarks.journal.records import EpisodeKey, Event
from palmette.machines.contract import Machine, StreamName
from palmette.trainers.course import Course
from palmette.trainers.policy_server import PolicyServer
from palmette.trainers.trainer import Trainer


class ChaosPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to break, and when."""

    crash_agent_every: int = 50
    """Episodes; the agent raises before its second reply."""
    destroy_sandbox_every: int = 75
    """Episodes; a command in the sandbox gets SIGKILL and the sandbox's directory is removed."""
    kill_policy_at: float = 0.3
    """Share of the steps."""
    kill_trainer_at: float = 0.6


KILL = "kill"
"""The kind of event that a kill is in the journal."""


class Tick(msgspec.Struct, frozen=True):
    """Time to look."""


class Chaos(Actor):
    """Watches the course of ``run`` every ``seconds`` and kills each of its two targets once."""

    def __init__(self, plan: ChaosPlan, run: str, total_steps: int, seconds: float = 0.1) -> None:
        self._run = run
        self._seconds = seconds
        self._targets: list[tuple[int, str]] = sorted(
            [
                (max(1, round(plan.kill_policy_at * total_steps)), "policy"),
                (max(1, round(plan.kill_trainer_at * total_steps)), "trainer"),
            ]
        )
        """Step and registered name."""

    async def continued(self) -> None:
        events = await self.system.whereis("journal", Journal).call(Journal.events)
        killed = {event.child for event in events if event.kind == KILL}
        self._targets = [target for target in self._targets if target[1] not in killed]
        self.send_after(self._seconds, Tick())

    async def receive(self, message: object) -> None:
        if not isinstance(message, Tick):
            await super().receive(message)
            return
        if not self._targets:
            self.stop()
            return
        course = await self.system.wait_for("course", Course)
        progress = await course.call(Course.progress)
        step, target = self._targets[0]
        if progress.step >= step:
            del self._targets[0]
            await self._kill(target)
        self.send_after(self._seconds, Tick())

    async def _kill(self, name: str) -> None:
        # wait_for: it may be in the middle of a restart, and a kill of nothing would be a kill less.
        if name == "policy":
            pid = await (await self.system.wait_for(name, PolicyServer)).call(PolicyServer.pid)
        else:
            pid = await (await self.system.wait_for(name, Trainer)).call(Trainer.pid)
        killed = Event(run=self._run, at=time.time(), kind=KILL, supervisor=self.path, child=name, reason="chaos")
        await self.system.whereis("journal", Journal).call(Journal.commit, [killed])
        os.kill(pid, signal.SIGKILL)


class AgentCrashed(RuntimeError):
    """Raised on purpose."""


class _CrashingSession:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._replies = 0

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        self._replies += 1
        if self._replies == 2:
            raise AgentCrashed("chaos: this agent crashes on purpose")
        return await self._session.complete(conversation, tools=tools, max_tokens=max_tokens, timeout=timeout)


class _CrashingClient:
    def __init__(self, client: ModelClient) -> None:
        self._client = client

    def session(self, task_id: str, *, seed: int) -> Session:
        return _CrashingSession(self._client.session(task_id, seed=seed))

    async def close(self) -> None:
        await self._client.close()


def sabotage_client(plan: ChaosPlan) -> Callable[[ModelClient, EpisodeKey, int], ModelClient]:
    """For ``EpisodeSettings.wrap_client``."""
    episodes = itertools.count(1)

    def wrap(client: ModelClient, key: EpisodeKey, attempt: int) -> ModelClient:
        if attempt == 1 and next(episodes) % plan.crash_agent_every == 0:
            return _CrashingClient(client)
        return client

    return wrap


class _SabotagedTool:
    """Before the tool runs, its sandbox is destroyed under it."""

    def __init__(self, tool: Tool, machine: Machine) -> None:
        self._tool = tool
        self._machine = machine

    @property
    def schema(self) -> ToolSchema:
        return self._tool.schema

    async def run(self, arguments: str) -> str:
        await destroy(self._machine)
        return await self._tool.run(arguments)


async def destroy(machine: Machine) -> None:
    """Start a command in a local machine, then remove the machine's directory and SIGKILL the command, from outside.

    Raises:
        MachineLost, ActorDied: the machine is gone, which is the point.
    """
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_output(stream: StreamName, data: bytes) -> None:
        if not told.done():
            told.set_result(data.decode())

    command = asyncio.ensure_future(machine.exec('echo "$$ $PWD"; exec sleep 60', timeout=30.0, on_output=on_output))
    try:
        async with asyncio.timeout(10.0):
            pid, _, directory = (await told).strip().partition(" ")
        # The directory goes first: a command whose end is seen while the machine stands is an ordinary result.
        await asyncio.to_thread(shutil.rmtree, directory)
        os.kill(int(pid), signal.SIGKILL)
        await command
    finally:
        command.cancel()
        await asyncio.wait([command])


def sabotage_tools(plan: ChaosPlan) -> Callable[[Sequence[Tool], Machine | None, EpisodeKey, int], Sequence[Tool]]:
    """For ``EpisodeSettings.wrap_tools``."""
    episodes = itertools.count(1)

    def wrap(tools: Sequence[Tool], machine: Machine | None, key: EpisodeKey, attempt: int) -> Sequence[Tool]:
        if machine is not None and attempt == 1 and next(episodes) % plan.destroy_sandbox_every == 0:
            return [_SabotagedTool(tool, machine) for tool in tools]
        return tools

    return wrap
