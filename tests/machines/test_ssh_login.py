"""Who is let in, who is believed, and what is said about it when not."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ssh_support import Stopwatch, backend_for, nothing_left, started
from support.ssh_server import SshServer, generate_key

from palmette.machines.errors import ImageUnusable, MachineLost

pytestmark = pytest.mark.usefixtures("ssh_server")


def fingerprint(key: Path) -> str:
    return subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True).stdout.split()[1]


@contextmanager
def agent_with(key: Path, place: Path) -> Generator[None]:
    """An ssh-agent that holds ``key`` and listens at ``place``."""
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        add = 'until ssh-add -q "$1" 2>/dev/null; do sleep 0.01; done'
        environment = {**os.environ, "SSH_AUTH_SOCK": str(place)}
        subprocess.run(["timeout", "10", "sh", "-c", add, "sh", key], check=True, env=environment)
        yield
    finally:
        agent.terminate()
        agent.wait(10)


async def refused(image: str) -> str:
    """What the error says."""
    backend = backend_for(image)
    with pytest.raises(ImageUnusable) as caught:
        await backend.start()
    await backend.stop()
    return str(caught.value)


async def lost(image: str) -> MachineLost:
    backend = backend_for(image)
    stopwatch = Stopwatch()
    with pytest.raises(MachineLost) as caught:
        await backend.start()
    stopwatch.check()
    await backend.stop()
    return caught.value


async def test_a_host_that_is_not_known_is_refused_with_its_fingerprint_and_the_remedy(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    image = ssh_server.image().replace(str(ssh_server.known_hosts), str(known))
    said = await refused(image)
    shown = fingerprint(ssh_server.host_key)
    assert shown in said
    assert f"[127.0.0.1]:{ssh_server.port} is in none of {known}" in said
    assert f"ssh-keyscan -p {ssh_server.port} 127.0.0.1 >>{known}" in said
    assert not known.exists(), "nothing is ever added"
    await nothing_left(ssh_server)


async def test_a_host_whose_key_has_changed_is_refused_and_both_keys_are_named(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    other = generate_key(tmp_path / "other")
    known.write_text(f"[127.0.0.1]:{ssh_server.port} {other.with_suffix('.pub').read_text()}")
    said = await refused(ssh_server.image().replace(str(ssh_server.known_hosts), str(known)))
    assert "has changed" in said
    assert said.count("SHA256:") == 2
    assert f"ssh-keygen -f {known} -R '[127.0.0.1]:{ssh_server.port}'" in said


async def test_a_revoked_host_key_is_refused_also_where_it_is_known(ssh_server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    line = ssh_server.known_hosts.read_text()
    known.write_text(f"{line}@revoked * {ssh_server.host_key.with_suffix('.pub').read_text()}")
    assert "is revoked" in await refused(ssh_server.image().replace(str(ssh_server.known_hosts), str(known)))


@pytest.mark.parametrize("kind", ["another", "missing", "rubbish", "passphrase"])
async def test_a_key_that_does_not_open_the_door_is_named_with_the_reason(
    ssh_server: SshServer, tmp_path: Path, kind: str
) -> None:
    key = tmp_path / "key"
    if kind in ("another", "passphrase"):
        generate_key(key, passphrase="word" if kind == "passphrase" else "")
    elif kind == "rubbish":
        key.write_text("-----BEGIN NOTHING-----\n")
    said = await refused(ssh_server.image().replace(str(ssh_server.key), str(key)))
    assert str(key) in said
    assert {"another": "refused", "missing": "No such file", "rubbish": "", "passphrase": "ssh-add"}[kind] in said
    assert "authorized_keys" in said
    await nothing_left(ssh_server)


async def test_a_key_of_the_agent_lets_us_in(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "config"
    configuration.write_text(f"Host *\n  UserKnownHostsFile {ssh_server.known_hosts}\n  IdentityFile {tmp_path}/none\n")
    image = f"ssh://{ssh_server.address}?config={configuration}"
    assert "there is none" in await refused(image)
    with agent_with(ssh_server.key, tmp_path / "agent"):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        async with started(image):
            pass
    await nothing_left(ssh_server)


async def test_a_port_where_nobody_listens_is_a_daemon_that_is_gone(ssh_server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = await lost(ssh_server.image().replace(f":{ssh_server.port}?", f":{port}?"))
    assert error.evidence is not None
    assert error.evidence.cause == "daemon_gone"


async def test_a_server_that_takes_the_connection_and_says_nothing_is_frozen(mortal_sshd: SshServer) -> None:
    with mortal_sshd.frozen():
        error = await lost(mortal_sshd.image())
    assert error.evidence is not None
    assert error.evidence.cause == "daemon_frozen"
    await nothing_left(mortal_sshd)


async def test_a_server_that_hangs_up_at_once_is_named_as_one(ssh_server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        image = ssh_server.image().replace(f":{ssh_server.port}?", f":{server.getsockname()[1]}?")
        backend = backend_for(image)
        import asyncio

        start = asyncio.create_task(backend.start())
        connection, _ = await asyncio.to_thread(server.accept)
        connection.close()
        with pytest.raises(MachineLost, match="MaxStartups") as caught:
            await start
        assert caught.value.evidence is not None
        assert caught.value.evidence.cause == "daemon_gone"
    await nothing_left(ssh_server)


async def test_a_name_that_does_not_exist_is_not_tried_again(ssh_server: SshServer) -> None:
    image = ssh_server.image().replace("127.0.0.1", "no-such-host.invalid")
    backend = backend_for(image)
    # Where no name server can be reached nobody can tell, and it may be tried again.
    with pytest.raises((ImageUnusable, MachineLost), match=r"no-such-host\.invalid"):
        await backend.start()
    await nothing_left(ssh_server)


async def test_a_jump_host_leads_to_one_that_is_reached_from_there(
    ssh_server: SshServer, ssh_jump_server: SshServer
) -> None:
    backend = backend_for(ssh_server.image(f"jump={ssh_jump_server.address}"))
    place = await backend.start()
    try:
        assert len(ssh_jump_server.sessions()) >= 1
        channel = await backend.open_channel(["sh", "-c", 'mkdir "$1"; echo here; cat', "sh", place.workdir])
        assert await channel.read() == b"here\n"
        assert await backend.examine() is None
    finally:
        await backend.stop()
    await nothing_left(ssh_server)
    await nothing_left(ssh_jump_server)


async def test_a_host_behind_a_jump_that_is_gone_is_told_from_the_jump_host(
    ssh_server: SshServer, ssh_jump_server: SshServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    image = ssh_server.image(f"jump={ssh_jump_server.address}").replace(f":{ssh_server.port}?", f":{port}?")
    error = await lost(image)
    assert f"through {ssh_jump_server.address}" in str(error)
    await nothing_left(ssh_jump_server)


@pytest.mark.parametrize(
    ("option", "says"), [("directory=/no/such/place", "/no/such/place"), ("directory=/proc", "fit")]
)
async def test_a_host_that_is_not_fit_is_refused_before_anything_is_made(
    ssh_server: SshServer, option: str, says: str
) -> None:
    if option == "directory=/proc" and os.geteuid() == 0:
        option, says = f"directory={ssh_server.key}", "client_key"
    assert says in await refused(ssh_server.image(option))
    await nothing_left(ssh_server)
