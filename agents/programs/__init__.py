"""Agent programs: asynchronous functions as supervised actors, with agents, machines, endpoints and observed children.

>>> from palmette.agents.programs import agent, done, program, wait
>>> @program(harness=react_harness(client))                                     # doctest: +SKIP
... async def solve(question: str) -> object:
...     solver = await agent("solver", system_prompt="Submit one number.")
...
...     @solver.on("submit")
...     async def submit(answer: str) -> str:
...         done(answer)
...         return "thank you"
...
...     await solver.send(question)
...     return await wait()
>>> await solve("What is 6 times 7?")                                           # doctest: +SKIP
'42'
"""

from palmette.agents.programs.agent_handle import Agent, AgentState
from palmette.agents.programs.ambient import (
    agent,
    bubble,
    current_system,
    done,
    emit,
    expose,
    fail,
    machine,
    own_events,
    spawn,
    wait,
)
from palmette.agents.programs.connections import Direction, connect
from palmette.agents.programs.decorator import Program, program
from palmette.agents.programs.errors import (
    HarnessEnded,
    NoEndpoint,
    NoMachine,
    NoProgram,
    ProgramCancelled,
    ProgramEnded,
    ProgramError,
    ProgramFailed,
    ProgramTimeout,
    StreamEnded,
)
from palmette.agents.programs.handle import Handle
from palmette.agents.programs.options import ProgramOptions
from palmette.agents.programs.recorder import Accepted, Entry, FileRecorder, MemoryRecorder, Recorder, Replied, Resulted
from palmette.agents.programs.stream import Dropped, Event, EventStream
from palmette.agents.programs.talk import AgentAnswer

__all__ = [
    "Accepted",
    "Agent",
    "AgentAnswer",
    "AgentState",
    "Direction",
    "Dropped",
    "Entry",
    "Event",
    "EventStream",
    "FileRecorder",
    "Handle",
    "HarnessEnded",
    "MemoryRecorder",
    "NoEndpoint",
    "NoMachine",
    "NoProgram",
    "Program",
    "ProgramCancelled",
    "ProgramEnded",
    "ProgramError",
    "ProgramFailed",
    "ProgramOptions",
    "ProgramTimeout",
    "Recorder",
    "Replied",
    "Resulted",
    "StreamEnded",
    "agent",
    "bubble",
    "connect",
    "current_system",
    "done",
    "emit",
    "expose",
    "fail",
    "machine",
    "own_events",
    "program",
    "spawn",
    "wait",
]
