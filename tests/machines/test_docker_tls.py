"""A daemon behind TLS, as ``DOCKER_HOST=tcp://...`` with ``DOCKER_TLS_VERIFY`` names it."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from docker_support import containers
from support.docker_daemon import IMAGE, DockerDaemon

from palmette.machines import machine_for
from palmette.machines.errors import MachineError


@pytest.fixture(scope="module", autouse=True)
def _daemon(mortal_docker_home: DockerDaemon) -> None:  # pyright: ignore[reportUnusedFunction]
    """There before a test's own processes are counted."""


async def test_commands_run_and_output_comes_over_tls_and_only_from_whom_we_trust(
    mortal_docker_home: DockerDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        _certificates(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = ["--tlsverify", f"--tlscacert={ours}/ca.pem", f"--tlscert={ours}/cert.pem", f"--tlskey={ours}/key.pem"]
    mortal_docker_home.start("--host", f"tcp://127.0.0.1:{port}", *tls)
    try:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they would come before the SDK's own settings
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(ours))
        machine = machine_for(f"docker:{IMAGE}?pids=64", owner="test-run")
        await machine.start()
        try:
            data = bytes(range(256)) * 4096
            result = await machine.exec("cat", stdin=data, max_output=1 << 21)
            assert result.stdout == data
        finally:
            await machine.stop()
        monkeypatch.setenv("DOCKER_CERT_PATH", str(theirs))
        with pytest.raises(MachineError, match="DOCKER_CERT_PATH") as caught:
            await machine_for(f"docker:{IMAGE}", owner="test-run").start()
        assert not caught.value.retryable
        assert containers(mortal_docker_home) == []
    finally:
        mortal_docker_home.stop()


def _certificates(folder: Path) -> None:
    """``ca.pem``, ``cert.pem`` and ``key.pem``, good for server and client at 127.0.0.1."""
    folder.mkdir()
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daemon")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(authority, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(certificate(issuer, authority.public_key(), ca=True))
    (folder / "cert.pem").write_bytes(certificate(subject, key.public_key(), ca=False))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
