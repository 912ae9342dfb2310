"""`palmette up` through a real sshd: a host becomes a member, runs a child, and is as it was afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
from lab_actors import Settler
from support.hosts import Loopback, running_lab
from support.ssh_server import SshServer
from support.ssh_server import ssh_server as ssh_server
from support.ssh_server import sshd_program as sshd_program

from palmette.actors import System, needs
from palmette.actors.cluster.channel import Address
from palmette.actors.cluster.head import Head
from palmette.actors.cluster.visit import visit
from palmette.supervisors import Supervisor, child

UP_SECONDS = 120


async def test_a_host_brought_up_over_ssh_runs_a_child_and_nothing_is_left_of_it(ssh_server: SshServer) -> None:
    with running_lab({"head": ()}, network=Loopback(1)) as lab:
        before = set(os.listdir("/tmp"))
        up = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "palmette", "up", ssh_server.image(), "--head", lab.head, "--name", "carried",
            "--capability", "gpu=1", "--python", sys.executable, "--pip=--no-index",
            "--env", f"PYTHONPATH={lab.environment['PYTHONPATH']}",
            env=lab.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert up.stderr is not None
        try:
            async with asyncio.timeout(UP_SECONDS):
                while b"is a member of the cluster" not in (line := await up.stderr.readline()):
                    assert line, "it ended"
            tree = Supervisor.spec(children=[child(Settler, name="it", on=needs(gpu=1))])
            async with System.start(tree, cluster=lab.head) as system:
                it = system.whereis("it", Settler)
                pid = await it.call(Settler.pid)
                node = next(p for p in psutil.Process(pid).parents() if "node" in p.cmdline())
                members = (await visit(Address.parse(lab.head), Head, lambda head: head.call(Head.cluster))).members
                assert [(m.name, [lease.path for lease in m.leases]) for m in members] == [
                    ("carried", ["/it"]),
                    ("head", []),
                ]
                assert await it.call(Settler.devices) == "0"
            up.send_signal(signal.SIGINT)
            async with asyncio.timeout(UP_SECONDS):
                await up.stderr.read()
                assert await up.wait() == 130
        finally:
            if up.returncode is None:
                up.kill()
                await up.wait()
        assert not node.is_running()
        assert not psutil.pid_exists(pid)
        async with asyncio.timeout(UP_SECONDS):
            while [name for name in set(os.listdir("/tmp")) - before if name.startswith("palmette-up.")]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the runner over there removes it as its last act
