"""Whatever kills, freezes or cuts the way to a machine: who waits knows within five seconds, and knows why."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
from machines_support import running, tagged, until
from ssh_support import Stopwatch, directories, nothing_left, own_connections, started
from support.ssh_server import SshServer, running_server

from palmette.machines.contract import ExecResult, Machine
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.evidence import Cause
from palmette.machines.identity import MachineId
from palmette.machines.images import machine_for
from palmette.machines.reaper import ReapReport
from palmette.machines.ssh import reap

pytestmark = pytest.mark.usefixtures("ssh_server")

OWN = f"reap-{os.getpid()}"
"""An owner that no other worker of pytest has: what is reaped is exactly known."""
_word = iter(range(10**9))


@asynccontextmanager
async def waiting(image: str) -> AsyncGenerator[tuple[Machine, asyncio.Task[ExecResult]]]:
    """A machine with a command that does not end by itself, and whoever waits for it. The machine is not stopped."""
    machine = machine_for(image, owner="test-ssh")
    await machine.start()
    word = f"{60 + next(_word)}.{os.getpid()}"
    wait = asyncio.create_task(machine.exec(["sleep", word]))
    await until(lambda: bool(running(word)), "the command to run")
    try:
        yield machine, wait
    finally:
        wait.cancel()
        await asyncio.wait([wait])


async def learns(wait: asyncio.Task[ExecResult], *causes: Cause) -> str:
    """Wait for the one who waits; what it was told. The clock starts here."""
    stopwatch = Stopwatch()
    with pytest.raises(MachineLost) as caught:
        await wait
    stopwatch.check()
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause in causes, str(caught.value)
    return str(caught.value)


async def test_the_server_s_process_for_the_connection_is_killed(mortal_sshd: SshServer) -> None:
    async with waiting(mortal_sshd.image()) as (machine, wait):
        mortal_sshd.kill_sessions()
        assert "takes new ones" in await learns(wait, "connection_lost")
        with pytest.raises(MachineLost):
            await machine.exec("true")
        await machine.stop()
    await nothing_left(mortal_sshd)


async def test_the_server_is_killed_with_all_its_processes(mortal_sshd: SshServer) -> None:
    async with waiting(mortal_sshd.image()) as (machine, wait):
        sessions = mortal_sshd.sessions()
        mortal_sshd.kill_master()
        for process in sessions:
            process.kill()
        await learns(wait, "daemon_gone")
        with pytest.raises(MachineError, match="may still be in /tmp/palmette-test-ssh"):
            await machine.stop()
        # Its runner has read the end of its input.
        await until(lambda: directories() == [] and tagged(f".{os.getpid()}.") == [], "the machine to be gone")
        mortal_sshd.start()
    await nothing_left(mortal_sshd)


async def test_machines_outlive_the_server_s_master_process(mortal_sshd: SshServer) -> None:
    async with waiting(mortal_sshd.image()) as (machine, _):
        mortal_sshd.kill_master()
        assert (await machine.exec("echo on")).stdout == b"on\n"
        other = machine_for(mortal_sshd.image(), owner="test-ssh")
        await other.start()  # over the connection that there is
        await other.stop()
        await machine.stop()
        assert own_connections(mortal_sshd) == []
        mortal_sshd.start()
    await nothing_left(mortal_sshd)


async def test_a_server_is_frozen_while_nothing_or_much_is_sent_and_the_runner_ends_by_its_lease(
    mortal_sshd: SshServer, sshd_program: Path
) -> None:
    with running_server(sshd_program) as busy_sshd:
        async with (
            waiting(mortal_sshd.image("lease=2")) as (idle, idle_wait),
            waiting(busy_sshd.image("lease=2")) as (busy, busy_wait),
        ):
            with mortal_sshd.frozen(), busy_sshd.frozen():
                upload = asyncio.create_task(busy.put("file", bytes(32 << 20)))
                await asyncio.gather(learns(idle_wait, "daemon_frozen"), learns(busy_wait, "daemon_frozen"))
                with pytest.raises(MachineLost):
                    await upload
                # Nobody can tell the runners. They have not heard of us.
                await until(lambda: directories() == [] and tagged(f".{os.getpid()}.") == [], "the lease to run out")
            await asyncio.gather(idle.stop(), busy.stop())
        await nothing_left(busy_sshd)
    await nothing_left(mortal_sshd)


async def test_the_wire_is_cut_and_the_machine_is_ended_over_another_one(mortal_sshd: SshServer) -> None:
    async with waiting(mortal_sshd.image()) as (machine, wait):
        (wire,) = own_connections(mortal_sshd)
        drop_everything(wire)
        assert "acknowledge" in await learns(wait, "connection_lost")
        assert directories() != [], "the runner has noticed nothing yet"
        await machine.stop()
        assert directories() == []
        assert tagged(f".{os.getpid()}.") == []
        mortal_sshd.kill_sessions()  # it would wait for the cut wire
    await nothing_left(mortal_sshd)


async def test_the_jump_host_dies(ssh_server: SshServer, sshd_program: Path) -> None:
    with running_server(sshd_program, ssh_server.key) as jump:
        ssh_server.know(jump)
        async with waiting(ssh_server.image(f"jump={jump.address}")) as (machine, wait):
            jump.kill_sessions()
            await learns(wait, "connection_lost")
            await machine.stop()
        await nothing_left(ssh_server)
        await nothing_left(jump)


async def test_the_machine_s_directory_is_removed(ssh_server: SshServer) -> None:
    async with waiting(ssh_server.image()) as (machine, _):
        (name,) = directories()
        shutil.rmtree(f"/tmp/{name}")
        with pytest.raises(MachineLost, match=r"machine removed.*palmette-test-ssh") as caught:
            await machine.probe()
        assert caught.value.evidence is not None
        await machine.stop()
    await nothing_left(ssh_server)


async def test_a_controller_that_is_away_for_longer_than_the_lease_is_told_so(ssh_server: SshServer) -> None:
    async with waiting(ssh_server.image("lease=1")) as (machine, wait):
        time.sleep(1.5)  # noqa: ASYNC251 - as a callback would that blocks the event loop
        await learns(wait, "expired")
        await machine.stop()
    await nothing_left(ssh_server)


async def test_a_runner_that_was_killed_is_replaced_and_what_it_left_is_killed(ssh_server: SshServer) -> None:
    async with waiting(ssh_server.image()) as (machine, wait):
        await machine.put("file", b"kept")
        for pid in tagged(machine.id):
            if runs_python(pid):
                os.kill(pid, signal.SIGKILL)
        result = await wait
        assert result.signal == 9
        assert result.evidence is not None
        assert result.evidence.cause == "runner_killed"
        assert await machine.get("file") == b"kept"
        assert (await machine.exec("echo again")).stdout == b"again\n"
        await machine.stop()
    await nothing_left(ssh_server)


async def test_after_kill_9_of_the_controller_nothing_is_left_on_the_host(ssh_server: SshServer) -> None:
    controller = start_controller(ssh_server.image())
    try:
        await until(lambda: directories(controller.pid) != [], "the controller's machine")
        await until(lambda: len(tagged(f".{controller.pid}.")) >= 3, "its command")
    finally:
        controller.kill()
        controller.wait(10)
    await nothing_left(ssh_server, controller.pid)


async def test_a_program_that_ends_before_it_has_put_anything_into_the_directory_takes_that_with_it(
    ssh_server: SshServer,
) -> None:
    async with started(ssh_server.image()) as backend:
        channel = await backend.open_channel(["cat"])  # as a runner whose controller dies before it is sent
        await channel.write(b"x")
        assert await channel.read() == b"x"
        assert directories() != []
        ssh_server.kill_sessions()
        await until(lambda: directories() == [], "the directory to be gone")
        assert await channel.read() == b""
    await nothing_left(ssh_server)


async def test_what_a_dead_controller_left_is_reaped_and_the_living_are_not(ssh_server: SshServer) -> None:
    dead = start_controller("local")  # any process of this host will do
    dead.kill()
    dead.wait(10)
    name = str(MachineId.new(OWN)).replace(f".{os.getpid()}.", f".{dead.pid}.")
    machine = machine_for(ssh_server.image(), owner=OWN)
    with leftover(name) as stray:
        await machine.start()
        report = await reap(ssh_server.image(), owner=OWN)
        # The stray may have been taken by the reaper of another test, which runs at the same time.
        assert msgspec.structs.replace(report, processes=1) == ReapReport(directories=(name,), processes=1, alive=1)
        assert report.processes <= 1
        assert stray.wait(10) == -signal.SIGKILL
        assert (await machine.exec("echo alive")).stdout == b"alive\n"
        assert await reap(ssh_server.image(), owner="somebody-else") == ReapReport()
        await machine.stop()
    await nothing_left(ssh_server)


async def test_machines_of_another_host_s_controller_are_reaped_when_nothing_is_heard_there(
    ssh_server: SshServer,
) -> None:
    mine = MachineId.new(OWN)
    name = str(MachineId(mine.owner, mine.pid, mine.start, "0" * 12, mine.nonce))
    with leftover(name):
        assert await reap(ssh_server.image(), owner=OWN) == ReapReport(elsewhere=(name,))
        os.utime(f"/tmp/palmette-{name}/lease", (1, 1))
        report = await reap(ssh_server.image(), owner=OWN)
        assert report == ReapReport(directories=(name,), processes=1)
    await nothing_left(ssh_server)


async def test_a_start_that_is_called_off_at_any_moment_leaves_nothing_on_the_host(ssh_server: SshServer) -> None:
    delay = 0.001
    while True:
        machine = machine_for(ssh_server.image(), owner="test-ssh")
        start = asyncio.create_task(machine.start())
        await asyncio.wait([start], timeout=delay)
        done = start.done()
        start.cancel()
        await asyncio.wait([start])
        await machine.stop()
        if done:
            break
        delay *= 1.8
    await nothing_left(ssh_server)


async def test_neither_the_server_s_environment_nor_ours_reaches_a_command(
    ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALMETTE_TEST_SECRET", "of the controller")
    machine = machine_for(ssh_server.image(), owner="test-ssh")
    await machine.start()
    result = await machine.exec("env", env={"GIVEN": "in confidence"})
    names = set(re.findall(r"^(\w+)=", result.text, re.MULTILINE))
    allowed = {"PATH", "LANG", "HOME", "TMPDIR", "USER", "LOGNAME", "PWD", "GIVEN", "_"}
    assert names <= allowed | {"PALMETTE_MACHINE", "PALMETTE_EXEC"}
    assert {"PATH", "HOME", "TMPDIR", "GIVEN"} <= names
    seen = await machine.exec("cat /proc/[0-9]*/cmdline", env={"GIVEN": "in confidence"})
    assert "in confidence" not in seen.text
    await machine.stop()
    await nothing_left(ssh_server)


@contextmanager
def leftover(name: str) -> Generator[subprocess.Popen[bytes]]:
    """What a machine without a runner leaves: a directory and a process."""
    left = Path("/tmp", f"palmette-{name}")
    left.mkdir(mode=0o700)
    (left / "work").mkdir()
    (left / "lease").touch()
    stray = subprocess.Popen(["sleep", "600"], env={"PALMETTE_MACHINE": name})
    try:
        yield stray
        assert not left.exists()
    finally:
        stray.kill()
        stray.wait(10)
        shutil.rmtree(left, ignore_errors=True)


def runs_python(pid: int) -> bool:
    try:
        return b"python3" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False


def drop_everything(descriptor: int) -> None:
    """Have the kernel drop whatever comes in for a socket, acknowledgements included: a cut wire, seen from here."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    filter = struct.pack("HL", 1, ctypes.addressof(program))
    duplicate = socket.socket(fileno=os.dup(descriptor))
    try:
        duplicate.setsockopt(socket.SOL_SOCKET, 26, filter)  # SO_ATTACH_FILTER copies it
    finally:
        duplicate.close()


_CONTROLLER = """
import asyncio, sys
from palmette.machines.images import machine_for

async def main():
    machine = machine_for(sys.argv[1], owner="test-ssh")
    await machine.start()
    await machine.exec("(setsid sleep 600 &) ; trap '' HUP; sleep 600", timeout=600)

asyncio.run(main())
"""


def start_controller(image: str) -> subprocess.Popen[bytes]:
    """A process with a machine and a command on it."""
    return subprocess.Popen([sys.executable, "-c", _CONTROLLER, image], stdin=subprocess.DEVNULL)
