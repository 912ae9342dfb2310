"""From a socket to an authenticated transport: which host keys are believed, which keys offered, what a refusal means.

A host's key must be in known_hosts beforehand. It is never added here: a machine that runs an agent's commands with
this user's key is not the place to trust on first use.

What goes wrong is sorted once, here: a host that cannot be reached, or that says nothing, is ``MachineLost`` (another
try may do better); one that is not who it should be, or does not let us in, is ``ImageUnusable``.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from palmette.machines.errors import ImageUnusable, MachineError, MachineLost
from palmette.machines.evidence import Cause, Evidence
from palmette.machines.ssh.address import Address

if TYPE_CHECKING:
    from paramiko import Channel, PKey, Transport
    from paramiko.hostkeys import HostKeys

PATIENCE = 4.0
"""Seconds that a server may take for each step of a login: to say who it is, to agree on keys, to look at a key."""
_LOG = "palmette.machines.ssh.protocol"


class Wire:
    """What the protocol runs over: a socket, or a channel through a jump host; and when something last came in."""

    def __init__(self, inner: socket.socket | Channel) -> None:
        self.inner = inner
        self.heard = time.monotonic()
        """When bytes last came in. Any bytes: a peer that is busy sending is as alive as one that answers."""
        self.ended = False
        """Whether the other side has closed it."""

    def recv(self, size: int) -> bytes:
        try:
            data = self.inner.recv(size)
        except ConnectionError:  # closed while something of ours was on the way
            self.ended = True
            raise
        if data:
            self.heard = time.monotonic()
        else:
            self.ended = True
        return data

    def send(self, data: bytes) -> int:
        return self.inner.send(data)

    def settimeout(self, seconds: float | None) -> None:
        self.inner.settimeout(seconds)

    def getpeername(self) -> object:
        return self.inner.getpeername()

    def cut(self) -> None:
        """End it in both directions, which wakes whoever reads. May block where it is a channel whose jump host hangs.

        Not closed: the thread that reads would do so on a descriptor that may be another's by then. It closes it.
        """
        if isinstance(self.inner, socket.socket):
            with suppress(OSError):  # not connected any more, or closed
                self.inner.shutdown(socket.SHUT_RDWR)
        else:
            self.inner.close()

    def close(self) -> None:
        self.inner.close()

    @property
    def _closed(self) -> bool:  # paramiko looks at it, as sockets have it
        return cast(bool, self.inner._closed)  # pyright: ignore


def log_in(address: Address, wire: Wire) -> Transport:
    """Speak the protocol over ``wire`` until we are logged in. Blocks; a failure closes ``wire``.

    Raises:
        MachineLost, ImageUnusable
    """
    import paramiko

    transport = None
    try:
        with boundary(f"log in at {address}"):
            try:
                transport = paramiko.Transport(cast(socket.socket, wire))
                _tame(transport)
                known = _KnownHosts(address)
                _prefer(transport, known.types())
                transport.start_client(timeout=PATIENCE)
                shown = transport.get_remote_server_key()
            except (paramiko.SSHException, EOFError) as error:
                raise _no_greeting(address, wire, error) from error
            known.check(shown)
            _authenticate(address, transport, wire)
            return transport
    except BaseException:
        if transport is not None:
            shut(transport, wire)
        wire.close()
        raise


def shut(transport: Transport, wire: Wire) -> None:
    """End a transport and wait for its thread. Blocks, for seconds where it leads through a host that hangs."""
    wire.cut()
    if transport.is_alive():
        transport.join(PATIENCE)
    transport.close()


@contextmanager
def boundary(doing: str) -> Generator[None]:
    """Sort what paramiko and the socket raise.

    Raises:
        MachineLost: the way to the host, or its server, failed.
    """
    from paramiko.ssh_exception import SSHException

    try:
        yield
    except MachineError:
        raise
    except ConnectionRefusedError as error:
        raise lost(doing, "daemon_gone", f"the connection was refused: {error}") from error
    except TimeoutError as error:
        raise lost(doing, "connection_lost", "no answer within the deadline") from error
    except (SSHException, EOFError, OSError) as error:
        raise lost(doing, "connection_lost", f"{error or type(error).__name__}") from error


def lost(doing: str, cause: Cause, detail: str) -> MachineLost:
    return MachineLost(f"could not {doing}", Evidence(cause=cause, detail=detail))


def _tame(transport: Transport) -> None:
    # paramiko logs a traceback for each refused banner and each lost connection, which we raise. Who wants to read them
    # gives this logger a handler and a level.
    logger = logging.getLogger(_LOG)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)
        logger.addHandler(logging.NullHandler())
    transport.set_log_channel(_LOG)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = PATIENCE


def _no_greeting(address: Address, wire: Wire, error: Exception) -> MachineLost:
    doing = f"log in at {address}"
    if wire.ended:
        return lost(
            doing, "daemon_gone",
            f"its sshd closed the connection during the greeting; it may be ending, or have too many logins at a time "
            f"(MaxStartups): {error}",
        )  # fmt: skip
    return lost(doing, "daemon_frozen", f"its sshd took the connection and said nothing more: {error}")


def _prefer(transport: Transport, types: list[str]) -> None:
    """Ask the server for the kinds of host key that we know of it, so that it does not show another one."""
    options = transport.get_security_options()
    wanted = [name for kind in types for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))]
    first = [name for name in wanted if name in options.key_types]
    options.key_types = [*first, *(name for name in options.key_types if name not in first)]


class _KnownHosts:
    """What the known_hosts files say of one host."""

    def __init__(self, address: Address) -> None:
        from paramiko.hostkeys import HostKeys

        self._address = address
        keys = HostKeys()
        self._revoked: set[str] = set()
        for path in address.known_hosts:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    for line in file:
                        self._learn(line, keys)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ImageUnusable(f"the known hosts in {path} cannot be read: {error}") from error
        self._keys: dict[str, PKey] = dict(keys.lookup(address.known_as) or {})

    def _learn(self, line: str, keys: HostKeys) -> None:
        from paramiko import SSHException
        from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

        # paramiko does not know of marked lines and stumbles over them.
        if line.startswith("@"):
            words = line.split()
            if words[0] == "@revoked" and len(words) >= 4:
                self._revoked.add(words[3])
            return
        try:
            entry = HostKeyEntry.from_line(line.strip())
        except (InvalidHostKey, SSHException):  # ssh passes over what it cannot read, too
            return
        if entry is not None:
            for name in entry.hostnames:
                keys.add(name, entry.key.get_name(), entry.key)

    def types(self) -> list[str]:
        return list(self._keys)

    def check(self, shown: PKey) -> None:
        """Raises ImageUnusable unless ``shown`` is a key of this host."""
        kind, name, files = shown.get_name(), self._address.known_as, " ".join(self._address.known_hosts)
        if shown.get_base64() in self._revoked:
            raise ImageUnusable(f"the host key of {self._address} ({kind} {shown.fingerprint}) is revoked in {files}")
        if not self._keys:
            scan = f"ssh-keyscan -p {self._address.port} {self._address.host}"
            raise ImageUnusable(
                f"the host {self._address} is unknown: {name} is in none of {files}. Its key is {kind} "
                f"{shown.fingerprint}; compare that with what the host's administrator says, then add it: "
                f"{scan} >>{self._address.known_hosts[0]}"
            )
        known = self._keys.get(kind)
        if known != shown:
            was = ", ".join(f"{kind} {key.fingerprint}" for kind, key in self._keys.items())
            raise ImageUnusable(
                f"the host key of {self._address} has changed: it shows {kind} {shown.fingerprint}, and {files} has "
                f"{was}. The host was set up anew, or somebody stands between; ask its administrator, and only then "
                f"remove the old key: ssh-keygen -f {self._address.known_hosts[0]} -R '{name}'"
            )


def _authenticate(address: Address, transport: Transport, wire: Wire) -> None:
    from paramiko import SSHException

    refused: list[str] = []
    for name, key in _keys(address, refused):
        try:
            more = transport.auth_publickey(address.user, key)
        except SSHException as error:
            if time.monotonic() - wire.heard > PATIENCE / 2:
                raise lost(f"log in at {address}", "daemon_frozen", "its sshd does not answer to a key") from error
            if not transport.is_active():
                refused.append(f"{name}: the server ended the login ({error})")
                break
            refused.append(f"{name}: refused")
            continue
        if not more:
            return
        refused.append(f"{name}: accepted, but the server wants more ({', '.join(more)})")
    if refused and not transport.is_active() and len(refused) == 1:
        raise lost(f"log in at {address}", "daemon_gone", refused[0])
    raise ImageUnusable(
        f"{address} lets none of our keys in ({'; '.join(refused) or 'there is none'}); name one with ?identity=PATH "
        "or load it into the agent (ssh-add), and put its public half into ~/.ssh/authorized_keys there"
    )


def _keys(address: Address, refused: list[str]) -> Generator[tuple[str, PKey]]:
    """The keys to offer, one after another; why one cannot be is added to ``refused``."""
    from paramiko import Agent, PKey, SSHException
    from paramiko.pkey import UnknownKeyType

    for path in address.identities:
        try:
            key = PKey.from_path(path)
        # cryptography says ValueError of a broken file, TypeError of one that needs a passphrase
        except (OSError, ValueError, TypeError, SSHException, UnknownKeyType) as error:
            why = "it has a passphrase; load it with ssh-add" if isinstance(error, TypeError) else str(error)
            refused.append(f"{path}: {why}")
            continue
        yield path, key
    if address.agent:
        agent = Agent()
        try:
            for key in agent.get_keys():
                yield f"the agent's {key.comment or key.get_name()}", key
        finally:
            agent.close()
