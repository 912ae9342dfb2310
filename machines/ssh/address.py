"""Where an ssh machine runs: what an image string says, and what OpenSSH's configuration adds to it.

::

    ssh://[user@]host[:port][?identity=PATH&known_hosts=PATH&jump=[user@]host[:port][,...]&directory=PATH&lease=SECONDS
                              &config=PATH]

What the string leaves out is looked up in ``~/.ssh/config`` (``config`` names another file) as the ``ssh`` command does
it: ``HostName``, ``User``, ``Port``, ``IdentityFile``, ``IdentitiesOnly``, ``ProxyJump``, ``UserKnownHostsFile``. An
``identity`` and a ``known_hosts`` in the string hold for its jump hosts too. Without an ``identity`` the agent's keys
are tried as well, and without any the usual files (``~/.ssh/id_ed25519`` and so on). A password has no place here.

>>> image = parse_image("build@farm:2222?lease=20")
>>> image.target, image.lease
(Target(host='farm', user='build', port=2222), 20.0)
"""

from __future__ import annotations

import getpass
import math
import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from palmette.machines.errors import ImageUnusable, UnknownImage

_OPTIONS = frozenset({"identity", "known_hosts", "jump", "directory", "lease", "config"})
_USUAL_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_USUAL_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
_MAX_JUMPS = 8
LEASE = 60.0
_EXAMPLE = "write it like ssh://user@host:22?identity=~/.ssh/id_ed25519"


class Target(msgspec.Struct, frozen=True):
    """``[user@]host[:port]``, as it was written."""

    host: str
    user: str | None = None
    port: int | None = None


class SshImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image string, taken apart."""

    target: Target
    identity: str | None = None
    known_hosts: str | None = None
    jump: tuple[Target, ...] | None = None
    """Hosts to go through, first to last; ``None``: as the configuration says."""
    directory: str = "/tmp"
    """Where on the host the machine's scratch directory is made."""
    lease: float = LEASE
    """Seconds that the machine outlives a controller which says nothing more."""
    config: str = "~/.ssh/config"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A login on a host, with all that is needed for it. Equal addresses share connections."""

    host: str
    port: int
    user: str
    identities: tuple[str, ...]
    agent: bool
    known_hosts: tuple[str, ...]
    jump: Address | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}{'' if self.port == 22 else f':{self.port}'}"

    @property
    def known_as(self) -> str:
        """The host's name in known_hosts."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def parse_image(rest: str) -> SshImage:
    """What follows ``ssh://`` in an image string.

    Raises:
        UnknownImage: it says what cannot be understood.
    """
    image = f"ssh://{rest}"
    try:
        parts = urlsplit(image)
        target = _target(parts.netloc, image)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise UnknownImage(f"the image {image!r} cannot be taken apart ({error}); {_EXAMPLE}") from error
    if parts.path not in ("", "/") or parts.fragment:
        raise UnknownImage(f"the image {image!r} names a path; {_EXAMPLE}, and a place as &directory=/path")
    given = dict(options)
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown or len(given) < len(options):
        what = f"the option {unknown[0]!r}, which does not exist" if unknown else "an option twice"
        raise UnknownImage(f"the image {image!r} has {what}; there are: {', '.join(sorted(_OPTIONS))}")
    for name, value in given.items():
        if not value:
            raise UnknownImage(f"the image {image!r} gives no value to {name!r}; write {name}=…, or leave it out")
    directory = given.get("directory", "/tmp").rstrip("/") or "/"
    if not directory.startswith("/") or ".." in directory.split("/"):
        raise UnknownImage(f"directory must be an absolute path on the host without '..', got {directory!r}")
    return SshImage(
        target=target,
        identity=given.get("identity"),
        known_hosts=given.get("known_hosts"),
        jump=_jumps(given["jump"], image) if "jump" in given else None,
        directory=directory,
        lease=_seconds(given["lease"], image) if "lease" in given else LEASE,
        config=given.get("config", "~/.ssh/config"),
    )


def resolve(image: SshImage) -> Address:
    """Ask OpenSSH's configuration for what ``image`` leaves open. Reads files: call it in a thread.

    Raises:
        ImageUnusable: the configuration cannot be read, or its jumps lead nowhere.
    """
    return _Resolver(image).address(image.target, image.jump, depth=0)


class _Resolver:
    def __init__(self, image: SshImage) -> None:
        from paramiko.config import SSHConfig
        from paramiko.ssh_exception import ConfigParseError, CouldNotCanonicalize

        self._image = image
        self._troubles = (ConfigParseError, CouldNotCanonicalize, ImportError, UnicodeError, OSError, KeyError)
        path = os.path.expanduser(image.config)
        try:
            self._config = SSHConfig.from_path(path)
        except FileNotFoundError:
            self._config = SSHConfig()
        except self._troubles as error:
            raise ImageUnusable(f"the ssh configuration {path} cannot be read: {error}") from error

    def address(self, target: Target, jumps: tuple[Target, ...] | None, *, depth: int) -> Address:
        if depth > _MAX_JUMPS:
            raise ImageUnusable(
                f"more than {_MAX_JUMPS} jumps lead to {self._image.target.host!r}; does ProxyJump go in a circle?"
            )
        found = self._lookup(target.host)
        if jumps is None:
            jumps = _configured_jumps(found.text("proxyjump"))
        image = self._image
        identities = [image.identity] if image.identity is not None else found.words("identityfile")
        only = image.identity is not None or found.text("identitiesonly") == "yes"
        if not identities and not only:
            identities = list(_USUAL_KEYS)
        known = [image.known_hosts] if image.known_hosts is not None else found.text("userknownhostsfile").split()
        return Address(
            host=found.text("hostname") or target.host,
            port=target.port or found.port(),
            user=target.user or found.text("user") or _own_name(),
            # One that was named in the image must be there; those of the configuration may be missing, as for ssh.
            identities=tuple(
                path for path in map(_expanded, identities) if image.identity is not None or os.path.exists(path)
            ),
            agent=not only,
            known_hosts=tuple(map(_expanded, known or _USUAL_KNOWN_HOSTS)),
            # Each jump is reached through those before it.
            jump=self.address(jumps[-1], jumps[:-1] or None, depth=depth + 1) if jumps else None,
        )

    def _lookup(self, host: str) -> _Found:
        try:
            return _Found(dict(self._config.lookup(host)))
        except self._troubles as error:
            raise ImageUnusable(f"the ssh configuration for {host!r} cannot be worked out: {error}") from error


class _Found:
    """What the configuration says of a host."""

    def __init__(self, options: dict[str, str | list[str]]) -> None:
        self._options = options

    def text(self, name: str) -> str:
        value = self._options.get(name, "")
        return value if isinstance(value, str) else " ".join(value)

    def port(self) -> int:
        text = self.text("port") or "22"
        if not text.isdecimal() or not 0 < int(text) < 1 << 16:
            raise ImageUnusable(f"Port {text!r} in the ssh configuration is no port")
        return int(text)

    def words(self, name: str) -> list[str]:
        value = self._options.get(name, [])
        return [value] if isinstance(value, str) else value


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError) as error:
        raise ImageUnusable("this process's user has no name to log in with; write ssh://user@host") from error


def _target(text: str, image: str) -> Target:
    user, at, place = text.rpartition("@")
    if ":" in user:
        raise UnknownImage(f"the image of user {user.partition(':')[0]!r} holds a password; use a key or an agent")
    if not place or (at and not user):
        raise UnknownImage(f"the image {image!r} names no {'user before @' if place else 'host'}; {_EXAMPLE}")
    parts = urlsplit(f"//{place}")
    try:
        port = parts.port
    except ValueError as error:
        raise UnknownImage(f"the port of {text!r} in the image {image!r} is none ({error}); {_EXAMPLE}") from error
    if parts.hostname is None or any(character.isspace() or character == "\0" for character in text):
        raise UnknownImage(f"{text!r} in the image {image!r} is no host; {_EXAMPLE}")
    # urlsplit would give the host in lower case; known_hosts and the configuration know it as it is written.
    host = place.rpartition(":")[0] if port is not None else place.removesuffix(":")
    if port == 0:
        raise UnknownImage(f"port 0 in the image {image!r} is no port; {_EXAMPLE}")
    return Target(host.strip("[]"), unquote(user) if at else None, port)


def _jumps(text: str, image: str) -> tuple[Target, ...]:
    return () if text == "none" else tuple(_target(one.removeprefix("ssh://"), image) for one in text.split(","))


def _configured_jumps(text: str) -> tuple[Target, ...]:
    if not text:
        return ()
    try:
        return _jumps(text, "of ProxyJump")
    except UnknownImage as error:
        raise ImageUnusable(f"ProxyJump {text!r} in the ssh configuration cannot be understood: {error}") from error


def _seconds(text: str, image: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86400:
        raise UnknownImage(f"lease must be a number of seconds from 1 to 86400, got {text!r} in {image!r}")
    return seconds


def _expanded(path: str) -> str:
    return str(Path(path.strip('"')).expanduser())
