"""The certificates of a cluster as values: what an authority and a host have, and how they are written down.

Everything is PEM, so that a bundle can be read, copied and pasted. Keys are P-256: what TLS takes everywhere. This
module imports `cryptography`, a tenth of a second: it is imported on use.
"""

from __future__ import annotations

import datetime
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS: Final = 3650
HOST_DAYS: Final = 730
BACKDATED: Final = datetime.timedelta(days=1)
"""Certificates are valid from before they are made: clocks of two hosts need not agree."""


class Authority(NamedTuple):
    """What issues certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"<authority {common_name(self.certificate)}>"  # the key is nobody's business


def new_authority() -> Authority:
    """A certificate authority of its own, under a name that no other has."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"palmette cluster {secrets.token_hex(8)}")
    certificate = _authority_certificate(name, key.public_key(), name, key, key.public_key(), AUTHORITY_DAYS, 1)
    return Authority(certificate, key)


def crossed(new: Authority, old: Authority) -> x509.Certificate:
    """``new``, vouched for by ``old``: with it a host of the new authority is believed by those who know the old."""
    subject = new.certificate.subject
    public = new.key.public_key()
    issuer = old.certificate.subject
    return _authority_certificate(subject, public, issuer, old.key, old.key.public_key(), HOST_DAYS, 0)


def _authority_certificate(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_public: ec.EllipticCurvePublicKey,
    days: int,
    path_length: int,
) -> x509.Certificate:
    return (
        _builder(subject, public, issuer, issuer_public, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def host_pem(authority: Authority, name: str, *above: x509.Certificate, days: float = HOST_DAYS) -> bytes:
    """A new key and certificate for the host ``name``; ``above`` goes along with the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    certificate = (
        _builder(_name(name), key.public_key(), issuer.subject, authority.key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        # Every host is called and calls.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    return key_pem(key) + certificates_pem(certificate, *above)


def _builder(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_public: ec.EllipticCurvePublicKey,
    days: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


# --- reading ---------------------------------------------------------------------------------------------------------


def common_name(certificate: x509.Certificate) -> str:
    """Whose certificate it is."""
    [attribute] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether ``authority`` has signed it."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_root(certificate: x509.Certificate) -> bool:
    """Whether it vouches for itself: what hosts trust."""
    return certificate.subject == certificate.issuer


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates in ``pem``, in order. Raises ValueError if there is none."""
    return x509.load_pem_x509_certificates(pem)


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in ``pem``. Raises ValueError if there is none of our kind."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind than this cluster's")
    return key


# --- writing ---------------------------------------------------------------------------------------------------------


def certificates_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, for this user alone: all of it, or, if we are killed, what was there before."""
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
