"""What a docker machine is made of and may use, and how an image string says it.

The part after the question mark has the names of Docker's own options (``memory``, ``cpus``, ``network``, ``user``,
``shm_size``, ``cap_add``; ``pids`` as in a Compose file's limits). What is not said has the default, and the defaults
are those for a program that nobody trusts: bounded in memory, processor and processes, no network, no capability.

>>> options = DockerOptions.parse("python:3.12-slim?memory=512m&network=bridge&cap_add=CHOWN&cap_add=FOWNER")
>>> options.image, options.memory, options.pids, options.cap_add
('python:3.12-slim', 536870912, 512, ('CHOWN', 'FOWNER'))
>>> str(options)
'python:3.12-slim?memory=512m&network=bridge&cap_add=CHOWN&cap_add=FOWNER'
"""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

import msgspec

from palmette.actors.sizes import parse_size
from palmette.machines.errors import UnknownImage

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LEAST_MEMORY = 16 << 20
"""Docker's own least is 6 MiB; a Python interpreter that keeps a place up and another that runs commands need more."""


class DockerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is made from, and its bounds."""

    image: str
    """As ``docker run`` takes it: name, tag or digest. It must hold ``python3`` (3.6 or newer)."""
    memory: int = 2 << 30
    """Bytes for all processes together; there is no swap on top. At least 16 MiB."""
    cpus: float = 1.0
    """Processors' worth of time."""
    pids: int = 512
    """Processes and threads at once, ours (about three) among them."""
    network: str = "none"
    """``none``, ``bridge``, or the name of a network that exists on the daemon."""
    user: str = ""
    """Name or ``uid[:gid]`` in the image; empty: the image's own."""
    shm_size: int = 64 << 20
    """Bytes for ``/dev/shm``; they count as memory."""
    cap_add: tuple[str, ...] = ()
    """Capabilities that root inside keeps, all others are dropped: ``CHOWN``, ``DAC_OVERRIDE``, ``FOWNER``, ``SETGID``
    and ``SETUID`` are what a package manager wants."""

    def __post_init__(self) -> None:
        if not self.image or "?" in self.image or self.image != self.image.strip():
            raise ValueError(f"image must be as `docker run` takes it, such as python:3.12, got {self.image!r}")
        if self.memory < _LEAST_MEMORY:
            raise ValueError(f"memory must be at least 16m (16 MiB), got {self.memory} bytes")
        if not (math.isfinite(self.cpus) and self.cpus >= 0.01):
            raise ValueError(f"cpus must be a number >= 0.01, got {self.cpus}")
        if self.pids < 8:
            raise ValueError(f"pids must be at least 8 (three are the machine's own), got {self.pids}")
        if not self.network or self.network == "host" or self.network.startswith("container:"):
            raise ValueError(
                f"network must be 'none', 'bridge' or a network's name, got {self.network!r}; "
                "the host's own network would let commands reach what listens on the host's loopback"
            )

    @classmethod
    def parse(cls, text: str) -> DockerOptions:
        """Read ``IMAGE[?NAME=VALUE&...]``.

        Raises:
            UnknownImage: there is no such option, it makes no sense, or it is said twice.
        """
        image, _, query = text.partition("?")
        values: dict[str, object] = {}
        capabilities: list[str] = []
        try:
            for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
                if name == "cap_add":
                    capabilities.append(value.upper())
                elif name not in _READERS:
                    raise ValueError(f"there is no option {name!r}; there are {', '.join((*_READERS, 'cap_add'))}")
                elif name in values:
                    raise ValueError(f"the option {name!r} is said twice")
                else:
                    values[name] = _READERS[name](value)
            return cls(image=image, cap_add=tuple(capabilities), **values)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise UnknownImage(
                f"the image 'docker:{text}' cannot be read: {error}. It is docker:IMAGE[?memory=2g&cpus=1&pids=512"
                "&network=none&user=NAME]"
            ) from error

    def __str__(self) -> str:
        """The shortest text that :meth:`parse` reads back."""
        said: list[tuple[str, str]] = []
        for field in msgspec.structs.fields(self)[1:]:
            value: object = getattr(self, field.name)
            if value == field.default:
                continue
            if isinstance(value, tuple):
                said += [(field.name, str(item)) for item in value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
            elif field.name in ("memory", "shm_size"):
                assert isinstance(value, int)
                said.append((field.name, _size_text(value)))
            else:
                said.append((field.name, f"{value:g}" if isinstance(value, float) else str(value)))
        return self.image + (f"?{urlencode(said)}" if said else "")


def _size_text(size: int) -> str:
    for unit in ("g", "m", "k"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


_READERS: dict[str, Callable[[str], object]] = {
    "memory": parse_size,
    "cpus": float,
    "pids": int,
    "network": str,
    "user": str,
    "shm_size": parse_size,
}
