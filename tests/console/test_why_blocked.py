"""``palmette why`` also tells when an actor held up the event loop of its run."""

from __future__ import annotations

import msgspec
import pytest

from palmette.actors import BlockRecord, System
from palmette.console.commands.why import show
from palmette.console.control import Control, WhyVerb
from palmette.console.stage import Stage
from palmette.console.work import Work
from palmette.supervisors import Supervisor

RECORD = BlockRecord(
    at=0.0, path="/pool/e1", kind="Agent", incarnation=2, doing="solve", where="agent.py:31 in solve", seconds=3.2
)


async def nothing_to_close() -> None: ...


WORK = Work(
    kind="evaluate",
    benchmark="b",
    config={},
    title="",
    planned=0,
    tree=lambda run, journal: Supervisor.spec(),
    close=nothing_to_close,
)


async def test_a_block_is_told_for_the_actor_and_for_those_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with System.start(Supervisor.spec()) as system:
        system.record_block(RECORD)
        stage = Stage(run="r", work=WORK, journal="", system=system)
        for path, told in (("/pool", True), ("/pool/e1", True), ("/pool/e2", False)):
            reply = await Control(stage).answer(msgspec.json.encode(WhyVerb(path=path)))
            assert reply.why is not None
            show(reply.why)
            line = "/pool/e1#2 (Agent) blocked the event loop for 3.2 s in solve: agent.py:31 in solve"
            assert (line in capsys.readouterr().out) is told
