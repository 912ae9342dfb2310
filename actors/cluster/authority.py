"""Making a cluster, inviting hosts, rotation: everything that writes credentials.

A cluster has one certificate authority of its own, on the host where it was made. Every host has a certificate of that
authority, which names it, and trusts nobody but the authority: no other cluster, nothing that the operating system
trusts. Between hosts there is TLS 1.3 with such a certificate on both sides. Where a host is does not matter, and is
not checked: hosts move.

    create(None, "head")                     # on the first host: the authority, and this host's certificate
    bundle = invite(None, "gpu-a")           # there: a certificate and its key for one more host, as PEM text
    accept(None, bundle)                     # on gpu-a, once the bundle was brought there by a way that is private
    rotate(); finish_rotation()              # a new authority; then no more of the old

*Rotation* needs no downtime and no order. After :func:`rotate` both authorities are trusted on the first host, and
what the new one issues is vouched for by the old one, so that hosts that know only the old one go on. Every other host
accepts a new bundle (:func:`invite` under its own name; also what to do before a certificate expires). After
:func:`finish_rotation`, on the first host and on each that has accepted its new bundle, the old authority counts for
nothing there. The old authority's key is destroyed by :func:`rotate`. There is no list of single certificates that are
revoked: to lock one host out, rotate, and do not invite it again.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from palmette.actors.cluster import certificates
from palmette.actors.cluster.credentials import (
    AUTHORITY,
    HOST,
    RENEW,
    TRUSTED,
    VARIABLE,
    Credentials,
    default_directory,
    read,
)
from palmette.actors.cluster.errors import BadCredentials

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ABANDONED_SECONDS: Final = 3600.0
"""What a killed :func:`create` has left is removed by the next one after this."""


def create(directory: Path | None, name: str) -> Credentials:
    """Make a cluster: its authority, and the certificate of this host, under ``name``.

    All of it is there afterwards, or, if this is killed, nothing.

    Raises:
        BadCredentials: there is a cluster already, or the name will not do.
    """
    directory = directory or default_directory()
    name = _checked(name)
    authority = certificates.new_authority()
    files = {
        AUTHORITY: certificates.key_pem(authority.key) + certificates.certificates_pem(authority.certificate),
        TRUSTED: certificates.certificates_pem(authority.certificate),
        HOST: certificates.host_pem(authority, name),
    }
    _settle(directory, files)
    return Credentials.load(directory)


def invite(directory: Path | None, name: str) -> bytes:
    """A bundle that makes a host ``name`` of the cluster: PEM text, to be kept secret until :func:`accept` has it.

    Raises:
        CredentialsMissing, BadCredentials: there is no authority here, or the name will not do.
    """
    directory = directory or default_directory()
    name = _checked(name)
    authority = _authority(directory)
    trusted = _trusted(directory)
    crossing = [cert for cert in _chain(directory)[1:] if cert.subject == authority.certificate.subject]
    heading = f"# An invitation to a palmette cluster for {name}: palmette cluster accept FILE. It contains a key.\n"
    host = certificates.host_pem(authority, name, *crossing)
    return heading.encode() + host + certificates.certificates_pem(*trusted)


def accept(directory: Path | None, bundle: bytes) -> Credentials:
    """Make this host the one that ``bundle`` is for; where it is that already, its certificate is renewed.

    Raises:
        BadCredentials: the bundle is none, or damaged, or has expired, or this host is another one already.
    """
    directory = directory or default_directory()
    try:
        key = certificates.read_key(bundle)
        leaf, *others = certificates.read_certificates(bundle)
        name = _checked(certificates.common_name(leaf))
        if leaf.public_key() != key.public_key():
            raise ValueError("its key is not that of its certificate")
    except (ValueError, TypeError) as error:
        raise BadCredentials(f"this is no invitation, or it is damaged: {error}; {RENEW}") from None
    roots = [cert for cert in others if certificates.is_root(cert)]
    if not any(certificates.is_issued_by(leaf, root) for root in roots):
        raise BadCredentials(f"the invitation for {name} is damaged: nobody in it has signed it; {RENEW}")
    above = [cert for cert in others if not certificates.is_root(cert)]
    files = {
        TRUSTED: certificates.certificates_pem(*roots),
        HOST: certificates.key_pem(key) + certificates.certificates_pem(leaf, *above),
    }
    if not (directory / HOST).exists():
        _settle(directory, files)
        return Credentials.load(directory)
    present, trusted = certificates.common_name(_chain(directory)[0]), _trusted(directory)
    if present != name or not set(trusted) & set(roots):
        whose = f"host {name}" if present != name else "another cluster, or of one that has been rotated since"
        raise BadCredentials(
            f"{directory} holds the credentials of host {present}, and the invitation is for {whose}; remove the "
            f"directory if they are not needed any more, or set {VARIABLE} to another"
        )
    # In this order, so that whoever is killed in between has something that works.
    for file, data in files.items():
        certificates.write_private(directory / file, data)
    return Credentials.load(directory)


def rotate(directory: Path | None = None) -> None:
    """Make a new authority, trusted beside the old one, and a new certificate of it for this host.

    Raises:
        CredentialsMissing, BadCredentials: there is no authority here, or an earlier rotation is not finished.
    """
    directory = directory or default_directory()
    old, trusted = _authority(directory), _trusted(directory)
    if len(trusted) > 1 and trusted[0] == old.certificate:
        raise BadCredentials(
            f"{directory} is within a rotation already: give every host its new bundle (palmette cluster invite), and "
            "then finish it (palmette cluster rotate --finish)"
        )
    name = certificates.common_name(_chain(directory)[0])
    new = certificates.new_authority()
    host = certificates.host_pem(new, name, certificates.crossed(new, old))
    # In this order: whoever is killed in between has something that works, and may rotate again.
    write = certificates.write_private
    write(directory / TRUSTED, certificates.certificates_pem(new.certificate, old.certificate))
    write(directory / HOST, host)
    write(directory / AUTHORITY, certificates.key_pem(new.key) + certificates.certificates_pem(new.certificate))


def finish_rotation(directory: Path | None = None) -> None:
    """Trust only the authority that this host's own certificate is from.

    Raises:
        CredentialsMissing, BadCredentials: there is no rotation to be finished here.
    """
    directory = directory or default_directory()
    key = certificates.read_key(read(directory / HOST))
    leaf, trusted = _chain(directory)[0], _trusted(directory)
    own = [root for root in trusted if certificates.is_issued_by(leaf, root)]
    if own == trusted:
        raise BadCredentials(f"{directory} trusts one authority only: there is no rotation to be finished")
    if own != trusted[:1]:
        raise BadCredentials(
            f"the certificate in {directory} is still the old authority's: accept a new bundle first "
            "(on the first host: palmette cluster invite NAME; here: palmette cluster accept FILE)"
        )
    certificates.write_private(directory / HOST, certificates.key_pem(key) + certificates.certificates_pem(leaf))
    certificates.write_private(directory / TRUSTED, certificates.certificates_pem(*own))


# --- parts -----------------------------------------------------------------------------------------------------------


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise BadCredentials(
            f"{name!r} cannot be a host's name: it takes 1 to 63 letters, digits, dots, hyphens and underscores, and "
            "begins with a letter or a digit"
        )
    return name


def _authority(directory: Path) -> certificates.Authority:
    pem = read(directory / AUTHORITY)
    try:
        return certificates.Authority(certificates.read_certificates(pem)[0], certificates.read_key(pem))
    except (ValueError, TypeError) as error:
        raise BadCredentials(f"{directory / AUTHORITY} is damaged: {error}; put your backup of it there") from None


def _trusted(directory: Path) -> list[Certificate]:
    return _certificates(directory / TRUSTED)


def _chain(directory: Path) -> list[Certificate]:
    return _certificates(directory / HOST)


def _certificates(path: Path) -> list[Certificate]:
    try:
        return certificates.read_certificates(read(path))
    except ValueError as error:
        raise BadCredentials(f"{path} is damaged: {error}; {RENEW}") from None


def _settle(directory: Path, files: dict[str, bytes]) -> None:
    """Make ``directory`` with ``files`` in it, all at once."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = f".{directory.name}.new-"
    for left in directory.parent.glob(f"{prefix}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(dir=directory.parent, prefix=prefix))  # mode 0700
    try:
        for file, data in files.items():
            certificates.write_private(new / file, data)
        os.rename(new, directory)  # fails unless there is nothing, or an empty directory
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if not directory.exists():
            raise
        raise BadCredentials(
            f"{directory} holds something already ({error.strerror}): use what is there, remove it, or set {VARIABLE} "
            "to another directory"
        ) from None
