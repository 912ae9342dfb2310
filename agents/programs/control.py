"""The control socket of a running root program: what ``palmette ls | status | call | send | logs | stop`` talk to.

A request is one JSON line, for example ``{"verb": "call", "endpoint": "add_task", "arguments": {"text": "x"}}``; the
answer is one :class:`ProgramReply`, for ``logs`` one for each line. Arguments of a call are JSON values, or texts as
they were typed (``raw``), which are then read as the endpoint's hints want them.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from typing import cast

import msgspec

from palmette.actors import ActorDied, DeadlineExceeded, PalmetteError, Ref, TreeNode, deadline
from palmette.actors.control_socket import ControlSocket, Takeover, Why, why_of
from palmette.agents.conversation import ToolSchema
from palmette.agents.errors import AgentError, BadArguments
from palmette.agents.programs.actor import ProgramActor
from palmette.agents.programs.agent_handle import Agent
from palmette.agents.programs.errors import NoEndpoint
from palmette.agents.programs.log import Line, Log, text_of
from palmette.agents.programs.record import Record
from palmette.agents.programs.shell import Shell
from palmette.agents.programs.stream import Dropped
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.machines import MachineError, TerminalSize

CALL_SECONDS = 600.0
"""The most that an endpoint may take to answer, whatever the caller asks for."""


NO_RESULT = msgspec.Raw()
"""Of a reply that has none."""


class ProgramVerb(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request. Which fields count depends on the verb."""

    verb: str
    program: str = ""
    """Of ``call``: the program's address below the root, for example ``pool-1``; the root itself where empty."""
    endpoint: str = ""
    arguments: dict[str, msgspec.Raw] = {}
    raw: dict[str, str] = {}
    timeout: float = 60.0
    agent: str = ""
    text: str = ""
    path: str = ""
    size: TerminalSize = TerminalSize()
    """Of ``shell``: the terminal's."""
    follow: bool = False
    last: int = 1000
    """Of ``logs``: how many lines of the past."""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An agent at a glance."""

    path: str
    state: str
    turns: int
    messages: int
    tools: list[str]
    machine: str = ""
    """The id of its machine, where it has one."""
    may_message: list[str] = []


class ProgramStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A running program at a glance, with what it started."""

    id: str
    program: str
    pid: int
    since: float
    """Seconds since the epoch."""
    programs: dict[str, str] = {}
    """State by address, the root's too."""
    agents: list[AgentStatus] = []
    endpoints: list[ToolSchema] = []
    recent: list[Line] = []


class ProgramReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to any verb; ``error`` is a sentence for a person."""

    run: str
    kind: str = "run"
    """``program`` in ours; what does not say so is a benchmark's run."""
    error: str = ""
    usage: bool = False
    """Whether it is the request that is wrong."""
    status: ProgramStatus | None = None
    tree: TreeNode | None = None
    why: Why | None = None
    result: msgspec.Raw = NO_RESULT
    line: Line | None = None
    dropped: int = 0
    """Lines that stood here and are not remembered."""


class _Wrong(Exception):
    """The request is."""


class ProgramControl(ControlSocket):
    """See the module's text."""

    def __init__(self, id: str, root: Record, log: Log) -> None:
        super().__init__(id)
        self._id = id
        self._root = root
        self._log = log
        self._since = time.time()

    async def answer(self, line: bytes) -> ProgramReply | AsyncIterator[ProgramReply] | Takeover:
        try:
            verb = msgspec.json.decode(line, type=ProgramVerb)
            return await self._do(verb)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._reply(error=f"not a request ({error}); {_VERBS}", usage=True)
        except (_Wrong, NoEndpoint, BadArguments) as error:
            return self._reply(error=str(error), usage=True)
        except (PalmetteError, AgentError, MachineError) as error:
            return self._reply(error=str(error))

    async def _do(self, verb: ProgramVerb) -> ProgramReply | AsyncIterator[ProgramReply] | Takeover:
        match verb.verb:
            case "status":
                return self._reply(status=await self._status())
            case "tree":
                return self._reply(tree=self.system.tree())
            case "why":
                return self._reply(why=why_of(self.system, verb.path))
            case "call":
                return self._reply(result=await self._call(verb))
            case "send":
                agent = self._agent(verb.agent)
                await agent.send(verb.text)
                return self._reply(result=_json(agent.path))
            case "logs":
                return self._lines(verb)
            case "agent":
                return self._reply(result=_json(_agent_status(self._agent(verb.agent))))
            case "attach":
                return self._conversation(self._agent(verb.agent), verb.last)
            case "shell":
                return Shell(self._agent(verb.agent).machine, verb.size, self._reply())
            case "stop":
                self._root.is_unwanted = True
                self.system.ref_at("/", ProgramSupervisor).cast(ProgramSupervisor.dismiss, self._root.name)
                return self._reply()
            case _:
                raise _Wrong(f"there is no verb {verb.verb!r}; {_VERBS}")

    def _reply(
        self,
        *,
        error: str = "",
        usage: bool = False,
        status: ProgramStatus | None = None,
        tree: TreeNode | None = None,
        why: Why | None = None,
        result: msgspec.Raw = NO_RESULT,
    ) -> ProgramReply:
        return ProgramReply(
            run=self._id, kind="program", error=error, usage=usage, status=status, tree=tree, why=why, result=result
        )

    async def _status(self) -> ProgramStatus:
        lines = [event.data for event in self._log.lines.snapshot()[-10:] if not isinstance(event, Dropped)]
        try:
            with deadline(2.0):  # a body that blocks its program must not hide everything else
                endpoints = await self._ref(self._root).call(ProgramActor.endpoints)
        except (ActorDied, DeadlineExceeded):
            endpoints = []
        return ProgramStatus(
            id=self._id,
            program=self._root.name,
            pid=os.getpid(),
            since=self._since,
            programs={path: record.state for path, record in sorted(self._log.programs.items())},
            agents=[_agent_status(agent) for _, agent in sorted(self._log.agents.items())],
            endpoints=endpoints,
            recent=cast("list[Line]", lines),
        )

    async def _call(self, verb: ProgramVerb) -> msgspec.Raw:
        path = f"{self._root.path}/{verb.program}".rstrip("/")
        record = self._log.programs.get(path)
        if record is None:
            raise _Wrong(f"no program runs at {path}; there are: {', '.join(sorted(self._log.programs))}")
        if not 0 < verb.timeout <= CALL_SECONDS:
            raise _Wrong(f"a call takes more than 0 and at most {CALL_SECONDS:g} seconds, got {verb.timeout:g}")
        told = {name: bytes(value) for name, value in verb.arguments.items()}
        with deadline(verb.timeout):
            ref = self._ref(record)
            self._log.add(path, "called", verb.endpoint)
            began = self.system.loop.time()
            try:
                answer = await ref.call(ProgramActor.invoke_typed, verb.endpoint, told, verb.raw)
            except DeadlineExceeded as error:
                raise AgentError(f"{path} did not answer {verb.endpoint} within {verb.timeout:g} s") from error
            except (PalmetteError, AgentError):
                raise
            except Exception as error:
                self._log.add(path, "call failed", f"{verb.endpoint}: {type(error).__name__}: {error}")
                raise AgentError(f"{type(error).__name__}: {error}") from error  # the caller's, as everywhere
        self._log.add(path, "answered", f"{verb.endpoint} in {self.system.loop.time() - began:.3f} s")
        return msgspec.Raw(answer)

    def _agent(self, name: str) -> Agent:
        """By address below the root, or by name where only one has it."""
        agents = self._log.agents
        exact = agents.get(f"{self._root.path}/{name}")
        found = [exact] if exact is not None else [each for each in agents.values() if each.name == name]
        if len(found) != 1:
            known = ", ".join(path.removeprefix(f"{self._root.path}/") for path in sorted(agents)) or "none"
            what = "no agent is" if not found else "several agents are"
            raise _Wrong(f"{what} called {name!r}; there are: {known}")
        return found[0]

    async def _lines(self, verb: ProgramVerb) -> AsyncIterator[ProgramReply]:
        lines = self._log.lines
        last = len(lines)
        async for event in lines.read(after=max(0, last - verb.last)):
            if isinstance(event, Dropped):
                yield ProgramReply(run=self._id, kind="program", dropped=event.count)
                continue
            yield ProgramReply(run=self._id, kind="program", line=cast("Line", event.data))
            if event.number >= last and not verb.follow:
                return

    async def _conversation(self, agent: Agent, last: int) -> AsyncIterator[ProgramReply]:
        """What an agent hears, says and does, in full."""
        async for event in agent.events.read(after=max(0, len(agent.events) - last)):
            if isinstance(event, Dropped):
                yield ProgramReply(run=self._id, kind="program", dropped=event.count)
            else:
                line = Line(time.time(), agent.path, event.type, text_of(event.data))
                yield ProgramReply(run=self._id, kind="program", line=line)

    def _ref(self, record: Record) -> Ref[ProgramActor]:
        return self.system.ref_at(record.path, ProgramActor)


_VERBS = "the verbs are status, tree, why, call, send, agent, attach, shell, logs and stop"


def _json(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _agent_status(agent: Agent) -> AgentStatus:
    machine = agent.machine_if_any
    return AgentStatus(
        path=agent.path,
        state=agent.state,
        turns=len(agent.talk.turns),
        messages=len(agent.talk.inbox),
        tools=[schema.name for schema in agent.toolbox.schemas],
        machine="" if machine is None else machine.id,
        may_message=sorted(agent.outgoing),
    )
