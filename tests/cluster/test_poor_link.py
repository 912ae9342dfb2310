"""A host at the end of a bad link: a tenth of the packets is lost, and the others take their time."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from lab_actors import Settler
from support.hosts import PoorNetwork, running_lab

from palmette.actors import ActorDied, System, deadline
from palmette.actors.cluster.needs import needs
from palmette.actors.heartbeat import Heartbeat
from palmette.supervisors import Backoff, Supervisor, child

LOSS = 10.0
HEARTBEAT = Heartbeat(interval=2.0, loss=LOSS)


async def test_a_bad_link_delays_and_loses_nothing_that_was_said() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip(
            "a bad link is made of tunnel devices and a network namespace, which takes root, ip and /dev/net/tun"
        )
    with running_lab({"near": (), "far": ()}, network=PoorNetwork(delay=0.1, loss=0.1), loss=LOSS) as lab:
        spec = child(Settler, name="it", on=needs(node="far"), backoff=Backoff(min=0.1), rules={"retryable": "backoff"})
        tree = Supervisor.spec(children=[spec], max_restarts=20)
        async with System.start(tree, cluster=lab.head, heartbeat=HEARTBEAT) as system:
            ref = system.whereis("it", Settler)
            with deadline(90.0):
                for _ in range(50):
                    ref.cast(Settler.add)
                assert await ref.call(Settler.add) == 51
                # Nobody was given up meanwhile, though heartbeats were late.
                assert (await ref.state()).incarnation == 1
                pid = await ref.call(Settler.pid)
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(ActorDied):
                    while True:
                        await ref.call(Settler.add)
                await system.wait_for("it", Settler)
                assert await ref.call(Settler.pid) != pid
