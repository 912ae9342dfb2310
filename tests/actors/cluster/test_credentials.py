"""A cluster's credentials: made at once or not at all, nobody else's to read, rotated without a gap."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from cluster_hosts import Hosts, answers, opened, run_on

from palmette.actors.cluster import authority, certificates, credentials
from palmette.actors.cluster.credentials import Credentials, default_directory
from palmette.actors.cluster.errors import BadCredentials, CredentialsMissing, Rejected


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- making and joining ----------------------------------------------------------------------------------------------


def test_what_is_made_belongs_to_this_user_alone(tmp_path: Path) -> None:
    made = authority.create(tmp_path / "deep" / "cluster", "head")
    assert made.name == "head"
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700
    files = list(made.directory.iterdir())
    assert {path.name for path in files} == {"authority.pem", "host.pem", "trusted.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert list(made.directory.parent.iterdir()) == [made.directory]


def test_a_cluster_is_not_made_over_another(tmp_path: Path) -> None:
    authority.create(tmp_path / "c", "head")
    before = contents(tmp_path / "c")
    with pytest.raises(BadCredentials, match=r"holds something already .* PALMETTE_CLUSTER_DIR"):
        authority.create(tmp_path / "c", "head")
    assert contents(tmp_path / "c") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_killed_init_leaves_nothing_half_made(tmp_path: Path, writes: int) -> None:
    script = (
        "import os, signal, sys\n"
        "from palmette.actors.cluster import authority, certificates\n"
        "write, left = certificates.write_private, [int(sys.argv[2])]\n"
        "def killed(path, data):\n"
        "    if not left[0]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    write(path, data)\n"
        "certificates.write_private = killed\n"
        "authority.create(authority.Path(sys.argv[1]), 'head')\n"
    )
    directory = tmp_path / "cluster"
    command = [sys.executable, "-c", script, str(directory), str(writes)]
    assert subprocess.run(command, check=False, timeout=100).returncode == -9
    assert not directory.exists()
    with pytest.raises(CredentialsMissing, match="palmette cluster init"):
        Credentials.load(directory)
    [left] = tmp_path.iterdir()
    os.utime(left, (0, 0))  # a day later
    assert authority.create(directory, "head").name == "head"
    assert list(tmp_path.iterdir()) == [directory]


def test_an_invitation_is_text_without_the_authoritys_key(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    bundle = authority.invite(head.directory, "gpu-a")
    assert bundle.isascii()
    assert bundle.count(b"PRIVATE KEY-----\n") == 2  # one begins and ends
    its_key = certificates.read_key(bundle)
    assert (
        its_key.private_numbers()
        != certificates.read_key((head.directory / "authority.pem").read_bytes()).private_numbers()
    )
    gpu = authority.accept(tmp_path / "gpu", bundle)
    assert gpu.name == "gpu-a"
    assert {path.name for path in gpu.directory.iterdir()} == {"host.pem", "trusted.pem"}
    with pytest.raises(CredentialsMissing, match="only the host where the cluster was made"):
        authority.invite(gpu.directory, "gpu-b")


def test_a_host_may_renew_its_certificate_and_is_not_made_another(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    gpu = authority.accept(tmp_path / "gpu", authority.invite(head.directory, "gpu-a"))
    before = contents(gpu.directory)
    assert authority.accept(gpu.directory, authority.invite(head.directory, "gpu-a")).name == "gpu-a"
    after = contents(gpu.directory)
    assert after["host.pem"] != before["host.pem"]
    with pytest.raises(
        BadCredentials, match="holds the credentials of host gpu-a, and the invitation is for host gpu-b"
    ):
        authority.accept(gpu.directory, authority.invite(head.directory, "gpu-b"))
    other = authority.create(tmp_path / "other", "head")
    with pytest.raises(BadCredentials, match="another cluster"):
        authority.accept(gpu.directory, authority.invite(other.directory, "gpu-a"))
    assert contents(gpu.directory) == after


@pytest.mark.parametrize("name", ["", "a b", "-a", "../x", "ä", "x" * 64, "a\n"])
def test_a_name_that_will_not_do_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadCredentials, match="cannot be a host's name"):
        authority.create(tmp_path / "head", name)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_invitation_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    other = authority.create(tmp_path / "other", "head")
    good = authority.invite(head.directory, "gpu-a")
    theirs = authority.invite(other.directory, "gpu-a")
    key, rest = theirs.split(b"-----BEGIN CERTIFICATE", 1)
    mine = b"-----BEGIN CERTIFICATE" + good.split(b"-----BEGIN CERTIFICATE", 1)[1]
    no_root = good.rpartition(b"-----BEGIN CERTIFICATE")[0]
    for bad in (b"", b"hello", good[: len(good) // 2], key, b"-----BEGIN CERTIFICATE" + rest, key + mine, no_root):
        with pytest.raises(BadCredentials, match="damaged"):
            authority.accept(tmp_path / "gpu", bad)
    assert not (tmp_path / "gpu").exists()


# --- loading ---------------------------------------------------------------------------------------------------------


def test_the_directory_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMETTE_CLUSTER_DIR", str(tmp_path / "c"))
    authority.create(None, "head")
    assert Credentials.load().directory == default_directory() == tmp_path / "c"


def test_files_that_others_may_read_are_refused(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    (head.directory / "host.pem").chmod(0o640)
    with pytest.raises(BadCredentials, match=r"open to others \(mode 640\): chmod 600"):
        Credentials.load(head.directory)


@pytest.mark.parametrize("file", ["host.pem", "trusted.pem"])
@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: bytes) -> None:
    head = authority.create(tmp_path / "head", "head")
    (head.directory / file).write_bytes(content)
    with pytest.raises(BadCredentials, match="damaged"):
        Credentials.load(head.directory)


def test_an_expired_certificate_is_said_to_be_expired(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    expire(head.directory, head.directory, "head")
    with pytest.raises(
        BadCredentials, match=r"certificate of head .* expired on \d{4}-\d\d-\d\d; .*palmette cluster invite"
    ):
        Credentials.load(head.directory)


def expire(authority_directory: Path, directory: Path, name: str) -> None:
    """Give the host in ``directory`` a certificate that has expired."""
    pem = (authority_directory / "authority.pem").read_bytes()
    issuer = certificates.Authority(certificates.read_certificates(pem)[0], certificates.read_key(pem))
    certificates.write_private(directory / "host.pem", certificates.host_pem(issuer, name, days=-0.5))


def test_no_secret_is_shown(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    pem = (head.directory / "authority.pem").read_bytes()
    shown = repr(head) + repr(
        certificates.Authority(certificates.read_certificates(pem)[0], certificates.read_key(pem))
    )
    assert "PRIVATE" not in shown
    assert "EllipticCurve" not in shown


def test_the_contexts_speak_tls_1_3_and_trust_this_cluster_alone(tmp_path: Path) -> None:
    head = authority.create(tmp_path / "head", "head")
    for context in (head.server_context(), head.client_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert [dict(part[0] for part in cert["subject"])["commonName"][:16] for cert in context.get_ca_certs()] == [  # type: ignore[arg-type]  # pyright: ignore
            "palmette cluster"
        ]


def test_unchanged_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = authority.create(tmp_path / "head", "head")
    context = head.server_context()
    monkeypatch.setattr(credentials, "read", None)
    assert head.server_context() is context


def test_importing_palmette_loads_no_cryptography() -> None:
    script = "import palmette, palmette.actors, sys; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 0


# --- rotation --------------------------------------------------------------------------------------------------------


def test_a_rotation_has_no_gap_and_ends_the_old_authority(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    old, new = hosts.gpu, "gpu-b"

    async def main() -> None:
        async with opened(hosts.head) as at_head, opened(old) as at_old:
            authority.rotate(hosts.head.directory)
            joined = hosts.join(new)
            async with opened(joined) as at_new:
                # Who knows only the old authority, and who has only the new one's certificate, both ways.
                for port, caller in ((at_head, old), (at_new, old), (at_old, joined), (at_old, hosts.head)):
                    await answers(port, caller)
                authority.finish_rotation(hosts.head.directory)
                authority.finish_rotation(joined.directory)
                await answers(at_head, joined)
                for port in (at_head, at_new):
                    with pytest.raises(Rejected):
                        await answers(port, old)
                # The old authority's host learns of the new one by a new bundle, in a directory of its own.
                bundle = authority.invite(hosts.head.directory, old.name)
                with pytest.raises(BadCredentials, match="rotated since"):
                    authority.accept(old.directory, bundle)
                await answers(at_head, authority.accept(tmp_path / "again", bundle))

    run_on("asyncio", main)


def test_a_host_that_accepts_its_new_bundle_in_time_misses_nothing(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def main() -> None:
        async with opened(hosts.head) as port:
            authority.rotate(hosts.head.directory)
            bundle = authority.invite(hosts.head.directory, "gpu-a")
            authority.accept(hosts.gpu.directory, bundle)
            await answers(port, hosts.gpu)
            authority.finish_rotation(hosts.gpu.directory)
            await answers(port, hosts.gpu)
            authority.finish_rotation(hosts.head.directory)
            await answers(port, hosts.gpu)

    run_on("asyncio", main)


def test_a_host_does_not_finish_what_it_has_not_begun(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    authority.rotate(hosts.head.directory)
    bundle = authority.invite(hosts.head.directory, "gpu-a")
    old = (hosts.gpu.directory / "host.pem").read_bytes()
    authority.accept(hosts.gpu.directory, bundle)
    (hosts.gpu.directory / "host.pem").write_bytes(old)  # as if killed in between
    with pytest.raises(BadCredentials, match="accept a new bundle first"):
        authority.finish_rotation(hosts.gpu.directory)


def test_rotations_are_finished_once_and_in_order(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    with pytest.raises(BadCredentials, match="no rotation to be finished"):
        authority.finish_rotation(hosts.head.directory)
    with pytest.raises(CredentialsMissing, match="only the host where the cluster was made"):
        authority.rotate(hosts.gpu.directory)
    authority.rotate(hosts.head.directory)
    with pytest.raises(BadCredentials, match="within a rotation already"):
        authority.rotate(hosts.head.directory)
    authority.finish_rotation(hosts.head.directory)
    with pytest.raises(BadCredentials, match="no rotation to be finished"):
        authority.finish_rotation(hosts.head.directory)
    authority.rotate(hosts.head.directory)


def test_a_rotation_that_is_killed_anywhere_leaves_what_works_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = certificates.write_private
    hosts = Hosts(tmp_path)

    class Killed(BaseException): ...

    async def main() -> None:
        async with opened(hosts.head) as port:
            await answers(port, hosts.gpu)

    for survives in range(3):
        left = [survives]

        def stop(path: Path, data: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(path, data)

        monkeypatch.setattr(certificates, "write_private", stop)
        with pytest.raises(Killed):
            authority.rotate(hosts.head.directory)
        monkeypatch.setattr(certificates, "write_private", write)
        run_on("asyncio", main)
    authority.rotate(hosts.head.directory)
    run_on("asyncio", main)


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [bytes([letter]) * 1000 for letter in b"abc"]
    for before, after in pairwise(texts):
        certificates.write_private(path, before)
        certificates.write_private(path, after)
        assert path.read_bytes() == after
    assert list(tmp_path.iterdir()) == [path]
