"""From a call of a program to its child spec, below a program or as a root."""

from __future__ import annotations

import re

from palmette.actors import Actor
from palmette.agents.programs.actor import ProgramActor, Surroundings
from palmette.agents.programs.decorator import Call
from palmette.agents.programs.log import Log
from palmette.agents.programs.providers import Providers
from palmette.agents.programs.record import Record
from palmette.agents.programs.recorder import MemoryRecorder
from palmette.supervisors import ChildSpec

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:@+=,-]")


def name_of(call: Call) -> str:
    """What its program is called, where nothing else is said."""
    return call.program.set.name or _NOT_IN_A_NAME.sub("", call.program.__name__) or "program"


def spec_for(
    call: Call, name: str, path: str, *, owner: str, host: ProgramActor | None, log: Log
) -> tuple[ChildSpec[Actor], Record]:
    """The child spec for a program, at ``path``, and its record. ``host`` is the program that starts it.

    Raises:
        BadSpec: an option makes no sense.
    """
    options = call.program.set
    given = None if host is None else host.surroundings
    record = Record(name, path, log=log, capacity=options.capacity)
    inline: dict[str, object] = {}
    if options.isolation == "inline":
        surroundings = Surroundings(
            log=log,
            harness=options.harness or (given.harness if given else None),
            recorder=options.recorder or (given.recorder if given else MemoryRecorder()),
            providers=given.providers if given else Providers("/"),
        )
        inline = {"record": record, "surroundings": surroundings}
    spec: ChildSpec[Actor] = ChildSpec(
        actor=ProgramActor,
        args=(call, owner),
        kwargs={
            "image": options.image or (host.image if host is not None else None),
            "timeout": options.timeout,
            "body_shutdown": options.shutdown / 2,
            "max_restarts": options.max_restarts,
            "max_seconds": options.max_seconds,
            **inline,
        },
        name=name,
        restart=options.restart,
        backoff=options.backoff,
        rules=dict(options.rules),
        shutdown=options.shutdown,
        isolation=options.isolation,
    )
    return spec, record
