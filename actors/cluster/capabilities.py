"""What a host offers: processors, memory, GPUs, and what its owner says of it.

    capabilities = await asyncio.to_thread(discover, {"gpu": "1", "zone": "eu", "tokens": "5"})

Most is found; ``palmette node --capability NAME=VALUE`` says the rest, or corrects what was found:

    cpus=4 memory=16GiB         less (or more) than there is
    gpu=1 gpu_memory=24GiB      the first GPU only; where nvidia-smi knows none, one that it does not know
    docker=no ssh=no            whether containers can be run, and whether an SSH server answers
    zone=eu label=fast          a word is a label: a child asks for it by ``needs(zone="eu")``
    tokens=5                    a number is counted: a child takes of it by ``needs(tokens=2)``
"""

from __future__ import annotations

import csv
import math
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from palmette.actors.sizes import parse_size

T = TypeVar("T")

SMI_SECONDS: Final = 20.0
"""For nvidia-smi: on a host with many GPUs and no persistence daemon it takes several."""
ANSWER_SECONDS: Final = 2.0
"""For a daemon on this host to show that it is there."""
_SMI: Final = ("nvidia-smi", "--query-gpu=index,name,memory.total,uuid", "--format=csv,noheader,nounits")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUP: Final = Path("/proc/self/cgroup")


class Gpu(msgspec.Struct, frozen=True):
    """One GPU."""

    index: int
    """As nvidia-smi counts: by PCI bus."""
    name: str = "GPU"
    memory: int = 0
    """Bytes; 0 where nobody said."""
    uuid: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one host offers to all of its children together."""

    cpus: float = 0.0
    """Processors' worth of time."""
    memory: int = 0
    """Bytes."""
    gpus: tuple[Gpu, ...] = ()
    docker: bool = False
    """Whether a Docker daemon answers."""
    ssh: bool = False
    """Whether an SSH server answers."""
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    """What else is counted, by name."""

    def __str__(self) -> str:
        """For people: ``2 cpus, 24GiB, 1 GPU (H200), docker, zone=eu``."""
        names = sorted({gpu.name for gpu in self.gpus})
        count = len(self.gpus)
        gpus = [f"{count} GPU{'s' if count > 1 else ''} ({', '.join(names)})"] if count else []
        there = [name for name, is_there in (("docker", self.docker), ("ssh", self.ssh)) if is_there]
        counted = [f"{name}={value:g}" for name, value in self.resources.items()]
        labels = [f"{name}={value}" for name, value in self.labels.items()]
        return ", ".join([f"{self.cpus:g} cpus", _gib(self.memory), *gpus, *there, *counted, *labels])


def _gib(memory: int) -> str:
    return f"{memory / (1 << 30):.3g} GiB"


def discover(extra: Mapping[str, str] | None = None) -> Capabilities:
    """What this host offers, as far as this process may use it. It blocks for up to half a minute: use a thread.

    Processors are those of this process's affinity and control group, GPUs those that ``CUDA_VISIBLE_DEVICES`` leaves.
    Whether Docker is there is asked at ``DOCKER_HOST``, where that is a unix socket, or at the usual one.

    Args:
        extra: What the host's owner says of it; see the module's text.

    Raises:
        ValueError: something in ``extra`` makes no sense, or contradicts what is there.
    """
    said = dict(extra or {})
    found = () if said.get("gpu") == "0" else _visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    gpus = _declared_gpus(said, found)
    cpus = _take(said, "cpus", _number)
    memory = _take(said, "memory", parse_size)
    docker, ssh = _take(said, "docker", _switch), _take(said, "ssh", _switch)
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    for name, value in said.items():
        check_name(name)
        if _float(value) is not None:
            resources[name] = _read(name, value, _number)
        elif value:
            labels[name] = value
        else:
            raise ValueError(f"the capability {name!r} has no value; write {name}=WORD or {name}=NUMBER")
    return Capabilities(
        cpus=_cpus() if cpus is None else cpus,
        memory=_memory() if memory is None else memory,
        gpus=gpus,
        docker=_docker_answers() if docker is None else docker,
        ssh=_ssh_answers() if ssh is None else ssh,
        labels=labels,
        resources=resources,
    )


def parse_capabilities(texts: list[str]) -> dict[str, str]:
    """Split ``NAME=VALUE`` texts of a command line, for :func:`discover`. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"a capability is NAME=VALUE, such as gpu=1 or zone=eu, got {text!r}")
        if name in found:
            raise ValueError(f"the capability {name!r} is said twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


RESERVED: Final = frozenset({"node", "avoid", "share", "strategy", "wait"})
"""What ``needs`` says of a placement and not of a host."""


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` can be a label's or a resource's: ``needs`` takes it as a keyword."""
    if not name.isidentifier() or name in RESERVED:
        raise ValueError(
            f"a label or resource cannot be called {name!r}: use letters, digits and _, beginning with a letter, and "
            f"none of {', '.join(sorted(RESERVED))}"
        )


# --- what was said ---------------------------------------------------------------------------------------------------


def _take(said: dict[str, str], name: str, read: Callable[[str], T]) -> T | None:
    return _read(name, said.pop(name), read) if name in said else None


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"the capability {name!r} cannot be read: {error}") from None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(text: str) -> float:
    value = _float(text)
    if value is None or not math.isfinite(value) or value < 0:
        raise ValueError(f"it must be a number from 0 on, got {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"it must be a whole number from 0 on, got {text!r}")
    return int(text)


def _switch(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false"):
        raise ValueError(f"it must be yes or no, got {text!r}")
    return text.lower() in ("yes", "true")


def _declared_gpus(said: dict[str, str], found: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    count = _take(said, "gpu", _count)
    memory = _take(said, "gpu_memory", parse_size)
    if count is not None and not found:
        found = tuple(Gpu(index) for index in range(count))
    elif count is not None and count > len(found):
        raise ValueError(f"gpu={count} was declared, but nvidia-smi knows {len(found)} that this process may use")
    if memory is not None and not found and count is None:
        raise ValueError("gpu_memory was declared, but there is no GPU; declare gpu=1 as well")
    if memory is not None:
        found = tuple(msgspec.structs.replace(gpu, memory=memory) for gpu in found)
    return found if count is None else found[:count]


# --- what is found ---------------------------------------------------------------------------------------------------


def _gpus() -> tuple[Gpu, ...]:
    """By nvidia-smi. None where it is missing, or says that it finds no driver or device."""
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (FileNotFoundError, PermissionError):
        return ()
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"nvidia-smi did not answer within {SMI_SECONDS:g} s: the driver hangs; declare gpu=0 to join without GPUs"
        ) from None
    return tuple(_listed(done.stdout)) if done.returncode == 0 else ()


def _listed(text: str) -> Iterator[Gpu]:
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 4 and row[0].isdecimal():
            # "[N/A]": a GPU that shares its memory with the host does not say how much.
            yield Gpu(int(row[0]), row[1], int(row[2]) << 20 if row[2].isdecimal() else 0, row[3])


def _visible(gpus: tuple[Gpu, ...], variable: str | None) -> tuple[Gpu, ...]:
    """Those of ``gpus`` that ``CUDA_VISIBLE_DEVICES`` names, in its order; as in CUDA, up to the first unknown one."""
    if variable is None:
        return gpus
    chosen: dict[Gpu, None] = {}
    for word in variable.split(","):
        word = word.strip()
        gpu = next((g for g in gpus if word == str(g.index) or (word[:4] == "GPU-" and g.uuid.startswith(word))), None)
        if gpu is None:
            break
        chosen[gpu] = None
    return tuple(chosen)


def _cpus() -> float:
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for quota, period in _limits("cpu.max", "cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        if quota > 0 and period > 0:
            count = min(count, quota / period)
    return count


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for (limit,) in _limits("memory.max", "memory", ("memory.limit_in_bytes",)):
        if limit > 0:
            total = min(total, int(limit))
    return total


def _limits(unified: str, controller: str, files: tuple[str, ...]) -> Iterator[list[float]]:
    """The numbers in the limit files of this process's control group and of those above it; version 2, then 1.

    A container sees its own group as the root, whatever /proc calls it: paths that are not there are passed over.
    """
    for line in _text(_OWN_GROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            words = [_text(folder / file).strip() for file in files] if controllers else _text(folder / unified).split()
            numbers = [number for word in words if (number := _float(word)) is not None]
            if len(numbers) == len(files):
                yield numbers
            if folder == root:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _docker_answers() -> bool:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return False
    return _answers(socket.AF_UNIX, host.removeprefix("unix://"), b"GET /_ping HTTP/1.0\r\n\r\n", b"HTTP/1.")


def _ssh_answers() -> bool:
    return _answers(socket.AF_INET, ("127.0.0.1", 22), b"", b"SSH-")


def _answers(family: int, address: str | tuple[str, int], question: bytes, beginning: bytes) -> bool:
    with socket.socket(family) as link:
        link.settimeout(ANSWER_SECONDS)
        try:
            link.connect(address)
            link.sendall(question)
            return link.recv(len(beginning)) == beginning
        except OSError:
            return False
