"""One host's credentials, read from its files: who it is, and whom of its cluster it trusts.

They lie in ``~/.palmette/cluster`` (``PALMETTE_CLUSTER_DIR``), which is this user's alone:

    host.pem        this host's key and certificate
    trusted.pem     the certificates of the authorities that it trusts
    authority.pem   only on the host where the cluster was made: what makes more hosts (a file to be backed up)

:mod:`palmette.actors.cluster.authority` makes them. A process that runs takes up changed files with its next
connection; connections that are there stay.
"""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import Final

from palmette.actors.cluster.errors import BadCredentials, CredentialsMissing

VARIABLE: Final = "PALMETTE_CLUSTER_DIR"
HOST: Final = "host.pem"
TRUSTED: Final = "trusted.pem"
AUTHORITY: Final = "authority.pem"
RENEW: Final = "have another made with `palmette cluster invite NAME` on the cluster's first host"


def default_directory() -> Path:
    """Where this user's credentials are."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".palmette" / "cluster")


def read(path: Path) -> bytes:
    """One of the files.

    Raises:
        CredentialsMissing: there is none.
        BadCredentials: others than this user can read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise BadCredentials(
                    f"{path} is open to others (mode {mode:o}): chmod 600 it; if they may have read "
                    "it, rotate the cluster's authority"
                )
            return file.read()
    except FileNotFoundError:
        raise missing(path) from None


def missing(path: Path) -> CredentialsMissing:
    """What to say where a file is not there."""
    if path.name == AUTHORITY:
        return CredentialsMissing(f"{path} is missing: only the host where the cluster was made can do this")
    return CredentialsMissing(
        f"{path} is missing: make a cluster here with `palmette cluster init`, or, to join one, run `palmette cluster "
        f"invite NAME` on its first host and `palmette cluster accept FILE` here; {VARIABLE} names another directory"
    )


class Credentials:
    """One host's credentials, as its files have them at present."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        """The host's, which is its certificate's common name."""
        self._stamp: object = None
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return f"<credentials of {self.name} in {self.directory}>"

    @classmethod
    def load(cls, directory: Path | None = None) -> Credentials:
        """This host's credentials.

        Raises:
            CredentialsMissing: there are none; it says how to get some.
            BadCredentials: they are damaged, expired, or open to others.
        """
        directory = directory or default_directory()
        credentials = cls(directory, _own_certificate(directory)[0])
        credentials.server_context()
        return credentials

    def server_context(self) -> ssl.SSLContext:
        """For whoever listens. Changed files are noticed by every call; what is unchanged is not read again.

        Raises:
            CredentialsMissing, BadCredentials: as :meth:`load`.
        """
        return self._context(server=True)

    def client_context(self) -> ssl.SSLContext:
        """For whoever calls; see :meth:`server_context`."""
        return self._context(server=False)

    def _context(self, *, server: bool) -> ssl.SSLContext:
        stamp = self._present_stamp()
        if stamp != self._stamp:
            self._contexts = {True: self._new_context(server=True), False: self._new_context(server=False)}
            self._stamp = stamp
        return self._contexts[server]

    def _present_stamp(self) -> object:
        # Files are replaced, not rewritten: a new one has a new inode.
        try:
            files = [os.stat(self.directory / name) for name in (HOST, TRUSTED)]
        except FileNotFoundError:
            raise missing(self.directory / HOST) from None
        today = datetime.date.today()  # an expiry is noticed, too
        return [today, *((file.st_ino, file.st_mtime_ns, file.st_size) for file in files)]

    def _new_context(self, *, server: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if server:
            context.num_tickets = 0  # every connection shows its certificate anew
        name, until = _own_certificate(self.directory)
        if until <= datetime.datetime.now(datetime.UTC):
            raise BadCredentials(f"the certificate of {name} in {self.directory} expired on {until:%F}; {RENEW}")
        trusted = read(self.directory / TRUSTED)
        try:
            context.load_verify_locations(cadata=trusted.decode("ascii"))
            # Without a password it would ask for that of a key that has one, at the terminal.
            context.load_cert_chain(self.directory / HOST, password="")
        except (ssl.SSLError, ValueError) as error:
            raise BadCredentials(f"the credentials in {self.directory} are damaged: {error}; {RENEW}") from None
        return context


def _own_certificate(directory: Path) -> tuple[str, datetime.datetime]:
    """Whom it names, and until when it is good."""
    from palmette.actors.cluster import certificates

    try:
        certificate = certificates.read_certificates(read(directory / HOST))[0]
        return certificates.common_name(certificate), certificate.not_valid_after_utc
    except ValueError as error:
        raise BadCredentials(f"{directory / HOST} is damaged: {error}; {RENEW}") from None
