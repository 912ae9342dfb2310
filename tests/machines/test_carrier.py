"""A host becomes a member over SSH, stays one as long as its carrier lives, and is left as it was found."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import sys
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import msgspec
import psutil
import pytest
from machines_support import until
from ssh_support import nothing_left
from support.ssh_server import SshServer

import palmette
from palmette.actors import ActorDied, Crashed, Ref, System, deadline, root_cause
from palmette.machines import carrier
from palmette.machines.carrier import NodeCarrier, NodePlan, carried_node
from palmette.machines.wheel import build_wheel
from palmette.supervisors import Supervisor

STAND_IN = Path(__file__).with_name("node_stand_in.py").read_text()
ACCEPT = """
import os, sys
os.mkdir(os.environ["PALMETTE_CLUSTER_DIR"])
open(os.environ["PALMETTE_CLUSTER_DIR"] + "/bundle", "w").write(sys.stdin.read())
"""
HOME = pwd.getpwuid(os.geteuid()).pw_dir


def plan_for(server: SshServer, **changes: object) -> NodePlan:
    plan = NodePlan(
        image=server.image("lease=10"),
        join="head:1900",
        capabilities={"gpu": "1", "zone": "eu"},
        bundle=b"SECRET",
        python=sys.executable,
        program=("-c", STAND_IN),
        accept=("-c", ACCEPT),
    )
    return msgspec.structs.replace(plan, **changes)


class Up:
    """A running carrier, and what its node has told."""

    def __init__(self, system: System, caplog: pytest.LogCaptureFixture) -> None:
        self.system = system
        self.carrier: Ref[NodeCarrier] = system.ref_at("/gpuhost", NodeCarrier)
        self._caplog = caplog

    async def wait(self) -> str:
        with deadline(100):
            return await self.carrier.call(NodeCarrier.wait_up)

    @property
    def told(self) -> list[dict[str, object]]:
        texts = [record.getMessage().partition(": ")[2] for record in self._caplog.records]
        return [json.loads(text) for text in texts if text.startswith("{")]

    def processes(self) -> list[int]:
        """Of all nodes that there were, those that are there."""
        pids = [pid for told in self.told for pid in (told["pid"], told["child"])]
        return [pid for pid in pids if isinstance(pid, int) and psutil.pid_exists(pid)]


@asynccontextmanager
async def up(plan: NodePlan, caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Up]:
    caplog.set_level(logging.INFO, "palmette.up")
    async with System.start(Supervisor.spec(children=[carried_node(plan, name="gpuhost")])) as system:
        yield Up(system, caplog)


async def test_a_node_comes_up_with_its_credentials_and_nothing_is_left_when_it_goes(
    ssh_server: SshServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with up(plan_for(ssh_server, environment={"HF_HOME": "/models"}), caplog) as host:
        await host.wait()
        [told] = host.told
        assert told["join"] == "--join=head:1900"
        assert told["capabilities"] == ["--capability=gpu=1", "--capability=zone=eu"]
        assert told["bundle"] == "SECRET"
        assert "SECRET" not in str(told["arguments"])
        environment = msgspec.convert(told["environment"], dict[str, str])
        assert environment["HF_HOME"] == "/models"
        assert environment["HOME"] == HOME
        assert "SECRET" not in str(environment)
        assert len(host.processes()) == 2
    await until(lambda: host.processes() == [], "the node and what it started to be gone")
    await nothing_left(ssh_server)


async def test_a_node_that_is_killed_comes_up_again(ssh_server: SshServer, caplog: pytest.LogCaptureFixture) -> None:
    async with up(plan_for(ssh_server), caplog) as host:
        first = await host.wait()
        pid = host.told[0]["pid"]
        assert isinstance(pid, int)
        psutil.Process(pid).kill()
        await until(lambda: len(host.told) == 2, "a second node")
        assert await host.wait() != first
        await until(lambda: len(host.processes()) == 2, "what the first one had started to be gone")
        assert "ended with status" in str(host.system.why("/gpuhost")[0])
    await until(lambda: host.processes() == [], "the nodes to be gone")
    await nothing_left(ssh_server)


async def test_a_node_whose_connection_breaks_is_ended_by_its_machine(
    mortal_sshd: SshServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with up(plan_for(mortal_sshd, image=mortal_sshd.image("lease=2")), caplog) as host:
        await host.wait()
        mortal_sshd.kill_sessions()
        await until(lambda: len(host.told) == 2 and len(host.processes()) == 2, "one node, and it is the second")
        await host.wait()
    await until(lambda: host.processes() == [], "the nodes to be gone")
    await nothing_left(mortal_sshd)


async def test_a_carrier_that_is_killed_leaves_nothing(ssh_server: SshServer, caplog: pytest.LogCaptureFixture) -> None:
    async with up(plan_for(ssh_server), caplog) as host:
        await host.wait()
        host.carrier.kill()
        await until(lambda: len(host.told) == 2 and len(host.processes()) == 2, "one node, and it is the second")
    await nothing_left(ssh_server)


async def gives_up(plan: NodePlan, caplog: pytest.LogCaptureFixture) -> str:
    """What the carrier says when it gives up for good."""
    with pytest.raises(ActorDied) as caught:
        async with up(plan, caplog):
            await asyncio.sleep(100)
    cause = root_cause(caught.value.reason)
    assert isinstance(cause, Crashed)
    return cause.text


async def test_a_host_without_a_python_is_named(ssh_server: SshServer, caplog: pytest.LogCaptureFixture) -> None:
    said = await gives_up(plan_for(ssh_server, python="/no/python"), caplog)
    assert "no Python 3.11 or newer by the name of /no/python" in said
    assert "--python PATH" in said
    await nothing_left(ssh_server)


async def test_credentials_that_are_refused_are_named(ssh_server: SshServer, caplog: pytest.LogCaptureFixture) -> None:
    said = await gives_up(plan_for(ssh_server, accept=("-c", "raise SystemExit('it has expired')")), caplog)
    assert "could not give it its credentials on ssh://" in said
    assert "it has expired" in said
    await nothing_left(ssh_server)


@pytest.mark.parametrize(("how", "said"), [("stubborn", "ended with status 1"), ("quiet", "did not join head:1900")])
async def test_a_node_that_does_not_join_is_tried_again_and_says_why(
    ssh_server: SshServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setattr(carrier, "JOIN_SECONDS", 1.0)
    async with up(plan_for(ssh_server, environment={"STAND_IN": how}), caplog) as host:
        await until(lambda: len(host.told) >= 2, "another try")
        assert said in str(host.system.why("/gpuhost")[0])
    await until(lambda: host.processes() == [], "the nodes to be gone")
    await nothing_left(ssh_server)


@pytest.mark.slow
async def test_a_host_without_palmette_is_given_this_one(
    ssh_server: SshServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    # Without what palmette depends on: that would be fetched from an index.
    mine = tmp_path / "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(mine, "w") as archive:
        archive.writestr("mine.py", "WORD = 'of my own'\n")
        archive.writestr("mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        archive.writestr("mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("mine-1.0.dist-info/RECORD", "mine.py,,\n")
    script = "import mine, palmette; print('joined', mine.WORD, palmette.__path__[0], flush=True)"
    plan = plan_for(
        ssh_server,
        python="",
        install=("--no-deps", "--no-index", str(mine)),
        program=("-c", f"{script}; import time; time.sleep(1000)"),
    )
    async with up(plan, caplog) as host:
        id = await host.wait()
        [line] = [record.getMessage() for record in caplog.records if "joined" in record.getMessage()]
        assert "joined of my own" in line
        assert f"palmette-{id}/work/node/venv" in line
        assert os.path.isfile(f"{line.split()[-1]}/machines/carrier.py")  # noqa: ASYNC240
    await nothing_left(ssh_server)


def test_the_wheel_holds_what_runs_here() -> None:
    name, data = build_wheel()
    assert name == f"palmette-{palmette.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(BytesIO(data)) as wheel:
        files = set(wheel.namelist())
        assert wheel.read("palmette/machines/carrier.py") == Path(carrier.__file__).read_bytes()
    assert {"palmette/py.typed", "palmette/console/report_template.html"} <= files
    assert not [file for file in files if "__pycache__" in file]
    assert build_wheel() == (name, data)
