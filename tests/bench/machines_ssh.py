"""Machines over ssh, beside paramiko by hand, on an sshd of our own: a command, and a machine's start.

By hand a command is ``exec_command`` on an open connection with TCP_NODELAY (which paramiko does not set; without it
each takes 45 ms), and no more than that: no deadline, no kill of what it leaves, no cap of its output. The start by
hand is the login, and a Python on the host that says a word: what a runner cannot do without.
"""

from __future__ import annotations

import socket
import time

import paramiko

from palmette.machines.images import machine_for
from tests.bench.measure import Line, Settings, compare, rounds
from tests.support.ssh_server import NoSshd, SshServer, running_server

EXEC, RAW_EXEC = "palmette, exec", "paramiko, exec_command"
START, RAW_START = "palmette, start and stop", "paramiko, login and python3"
NEXT = "palmette, a second machine"


async def measure(settings: Settings) -> list[Line]:
    """The rows; none where there is no sshd and none can be installed."""
    try:
        with running_server() as server:
            return await _measure(settings, server)
    except NoSshd:
        return []


async def _measure(settings: Settings, server: SshServer) -> list[Line]:
    n, few = settings.size(100, 3), settings.size(5, 1)
    client = _log_in(server)
    machine = machine_for(server.image(), owner="bench")
    await machine.start()

    async def ours() -> float:
        begun = time.perf_counter()
        for _ in range(n):
            assert (await machine.exec(["true"])).ok
        return (time.perf_counter() - begun) / n

    def by_hand() -> float:
        begun = time.perf_counter()
        for _ in range(n):
            assert _run(client, "true") == b""
        return (time.perf_counter() - begun) / n

    async def start(image: str) -> float:
        begun = time.perf_counter()
        for _ in range(few):
            another = machine_for(image, owner="bench")
            await another.start()
            await another.stop()
        return (time.perf_counter() - begun) / few

    def start_by_hand() -> float:
        begun = time.perf_counter()
        for _ in range(few):
            another = _log_in(server)
            assert _run(another, "python3 -I -S -c 'print(1)'") == b"1\n"
            another.close()
        return (time.perf_counter() - begun) / few

    # Another address is another connection.
    alone = server.image().replace("127.0.0.1", "localhost")
    try:
        costs = await rounds(settings.rounds, {EXEC: ours, RAW_EXEC: by_hand})
        starts = await rounds(
            settings.rounds,
            {START: lambda: start(alone), NEXT: lambda: start(server.image()), RAW_START: start_by_hand},
        )
    finally:
        await machine.stop()
        client.close()
    return [
        compare("a command over ssh", settings.loop, costs, EXEC, RAW_EXEC, at_most=1.5),
        compare("a machine over ssh", settings.loop, starts, START, RAW_START),
        compare("one more machine over ssh", settings.loop, starts, NEXT, RAW_START),
    ]


def _log_in(server: SshServer) -> paramiko.SSHClient:
    wire = socket.create_connection(("127.0.0.1", server.port), 10.0)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client = paramiko.SSHClient()
    client.load_host_keys(str(server.known_hosts))
    client.connect(
        "127.0.0.1", server.port, server.user, key_filename=str(server.key), sock=wire,
        allow_agent=False, look_for_keys=False,
    )  # fmt: skip
    return client


def _run(client: paramiko.SSHClient, command: str) -> bytes:
    _, stdout, _ = client.exec_command(command)
    output = stdout.read()
    assert stdout.channel.recv_exit_status() == 0
    return output
