"""A host at the end of a bad link: a tenth of the packets is lost, and the others take their time."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

import pytest
from lab_actors import Settler
from support.hosts import PoorNetwork, running_lab

from palmette.actors import ActorDied, Ref, System, deadline
from palmette.actors.cluster.needs import needs
from palmette.supervisors import Backoff, Supervisor, child

LOSS = 10.0


POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None and os.path.exists("/dev/net/tun")


@pytest.mark.skipif(not POSSIBLE, reason="a bad link is made of tunnel devices in a namespace: root, ip, /dev/net/tun")
async def test_a_bad_link_delays_and_loses_nothing_that_was_said() -> None:
    with running_lab({"near": (), "far": ()}, network=PoorNetwork(delay=0.1, loss=0.1), loss=LOSS) as lab:
        spec = child(Settler, name="it", on=needs(node="far"), backoff=Backoff(min=0.1), rules={"retryable": "backoff"})
        tree = Supervisor.spec(children=[spec], max_restarts=20)
        async with System.start(tree, cluster=lab.head) as system:
            ref = system.whereis("it", Settler)
            with deadline(90.0):
                for _ in range(50):
                    ref.cast(Settler.add)
                assert await ref.call(Settler.add) == 51
                # Nobody was given up meanwhile, though heartbeats were late.
                assert (await ref.state()).incarnation == 1
                pid = await ref.call(Settler.pid)
                os.kill(pid, signal.SIGKILL)
                assert await _next(ref, pid) != pid


async def _next(ref: Ref[Settler], pid: int) -> int:
    while True:
        try:
            if (now := await ref.call(Settler.pid)) != pid:
                return now
        except ActorDied:
            await asyncio.sleep(0.1)
