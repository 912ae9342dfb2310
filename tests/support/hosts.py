"""Hosts for the tests: network namespaces with addresses of their own on one machine, joined by a switch.

Made and removed by the test itself. Where that is not permitted (it takes root), the "hosts" are ports on loopback:
links cannot be cut there, and tests that need that are skipped with the reason.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.debian import NotInstalled, install

from palmette.actors.cluster.authority import create
from palmette.actors.cluster.credentials import VARIABLE

START_SECONDS = 90.0
STOP_SECONDS = 20.0
LOSS = 4.0
"""Seconds of silence after which a host of ours is lost."""
NODE = (sys.executable, "-m", "palmette", "node")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """A switch, with hosts on it: ``10.77.N.1`` is this process, the hosts are ``.11``, ``.12`` …"""

    def __init__(self, hosts: int) -> None:
        self._mark = f"plm{os.getpid()}"
        number = os.getpid() % 250
        self.here = f"10.77.{number}.1"
        self.addresses = [f"10.77.{number}.{11 + index}" for index in range(hosts)]
        try:
            self._make()
        except OSError:
            self.remove()
            raise

    def _make(self) -> None:
        switch = self._name("sw")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        self._plug(None, self.here)
        for index, address in enumerate(self.addresses):
            _ip("netns", "add", self._name(index))
            _ip("-n", self._name(index), "link", "set", "lo", "up")
            self._plug(index, address)

    def _plug(self, index: int | None, address: str) -> None:
        port = "here" if index is None else f"h{index}"
        outer = f"{self._mark}{port}"[-15:]
        where = [] if index is None else ["-n", self._name(index)]
        end = ["netns", self._name("sw")]
        _ip("link", "add", outer, "type", "veth", "peer", "name", f"p{port}")
        _ip("link", "set", f"p{port}", *end)
        _ip("-n", self._name("sw"), "link", "set", f"p{port}", "master", "br0", "up")
        if index is not None:
            _ip("link", "set", outer, "netns", self._name(index), "name", "eth0")
        name = outer if index is None else "eth0"
        _ip(*where, "addr", "add", f"{address}/24", "dev", name)
        _ip(*where, "link", "set", name, "up")

    def _name(self, what: int | str) -> str:
        return f"{self._mark}-{what}"

    def inside(self, host: int) -> list[str]:
        """What a command is to begin with to run on a host."""
        return ["ip", "netns", "exec", self._name(host)]

    def cut(self, host: int) -> None:
        """Pull its plug."""
        _ip("-n", self._name("sw"), "link", "set", f"ph{host}", "down")

    def mend(self, host: int) -> None:
        """Put it back."""
        _ip("-n", self._name("sw"), "link", "set", f"ph{host}", "up")

    def remove(self) -> None:
        """Everything, and what is plugged in with it."""
        for what in (*range(len(self.addresses)), "sw"):
            subprocess.run(["ip", "netns", "del", self._name(what)], capture_output=True, timeout=20, check=False)


class Loopback:
    """No network of our own: all hosts are this one."""

    here = "127.0.0.1"

    def __init__(self, hosts: int) -> None:
        self.addresses = [self.here] * hosts

    def inside(self, host: int) -> list[str]:
        return []

    def cut(self, host: int) -> None:
        pytest.skip("a link can only be cut where network namespaces can be made, which takes root")

    mend = cut

    def remove(self) -> None:
        """There is nothing."""


class PoorNetwork:
    """This host, and one more at the end of a bad link: ``delay`` seconds each way, and ``loss`` of the packets."""

    def __init__(self, *, delay: float, loss: float) -> None:
        number = os.getpid() % 250
        self.here, there = f"10.78.{number}.1", f"10.78.{number}.2"
        self.addresses = [self.here, there]
        self._namespace = f"plm{os.getpid()}-poor"
        _ip("netns", "add", self._namespace)
        _ip("-n", self._namespace, "link", "set", "lo", "up")
        script = Path(__file__).with_name("poor_link.py")
        self._link = subprocess.Popen(
            [sys.executable, script, self._namespace, self.here, there, str(delay), str(loss)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._link.stdout is not None
        if self._link.stdout.readline() != b"up\n":
            self.remove()
            raise OSError("no tunnel devices")

    def inside(self, host: int) -> list[str]:
        return ["ip", "netns", "exec", self._namespace] if host else []

    def cut(self, host: int) -> None:
        raise NotImplementedError

    mend = cut

    def remove(self) -> None:
        assert self._link.stdin is not None
        assert self._link.stdout is not None
        self._link.stdin.close()
        self._link.stdout.close()
        self._link.wait(20)
        subprocess.run(["ip", "netns", "del", self._namespace], capture_output=True, timeout=20, check=False)


AnyNetwork = Network | Loopback | PoorNetwork


class HostNode:
    """One ``palmette node``."""

    def __init__(self, name: str, command: list[str], home: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self._environment = environment
        self.output = home / f"{name}.txt"
        self.process: psutil.Process | None = None

    def start(self) -> None:
        """Start it; :meth:`wait_up` waits. It is no child of this process: tests kill it, and start another."""
        self.output.write_text("")
        script = 'setsid "$@" >>"$OUTPUT" 2>&1 </dev/null & echo $!'
        done = subprocess.run(
            ["sh", "-c", script, "sh", *self.command],
            env={**self._environment, "OUTPUT": str(self.output)}, stdout=subprocess.PIPE, check=True, timeout=20,
        )  # fmt: skip
        self.process = psutil.Process(int(done.stdout))

    def is_up(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.is_running() and self.process.status() != "zombie"

    def wait_up(self) -> None:
        """Until it says so."""
        assert self.process is not None
        until = time.monotonic() + START_SECONDS
        while "Ctrl-C ends it" not in (said := self.output.read_text()):
            assert self.is_up(), f"node {self.name} ended: {said}"
            assert time.monotonic() < until, f"node {self.name} is not up in {START_SECONDS:g} s: {said}"
            time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """It, and all that it has started."""
        assert self.process is not None
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """``kill -9`` of all its processes at once."""
        processes = self.processes()
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=STOP_SECONDS)


class Lab:
    """A cluster of ``palmette node`` processes, each on a host of its own; the first is the head."""

    def __init__(self, home: Path, network: AnyNetwork, capabilities: dict[str, tuple[str, ...]], loss: float) -> None:
        self.network = network
        port = 1900 if isinstance(network, Network) else _free_port(network.addresses[0])
        self.head = f"{network.addresses[0]}:{port}"
        credentials = create(home / "credentials", "lab")
        self.credentials = credentials.directory
        here = Path(__file__).parents[1]
        self._home = home
        self.environment = {
            **os.environ,
            VARIABLE: str(credentials.directory),
            "PYTHONPATH": os.pathsep.join([str(here), str(here / "cluster"), *sys.path[1:]]),
            "TMPDIR": str(home),
        }
        self.nodes: dict[str, HostNode] = {}
        host, port = self.head.split(":")
        for index, (name, offered) in enumerate(capabilities.items()):
            head = ["--bind", host, "--port", port, "--loss", str(loss)]
            place = head if index == 0 else ["--join", self.head]
            says = [word for capability in offered for word in ("--capability", capability)]
            command = [*network.inside(index), *NODE, "--name", name, *place, *says]
            self.nodes[name] = HostNode(name, command, home, self.environment)

    def start(self) -> None:
        """Start the head, then the others."""
        head, *others = self.nodes.values()
        head.start()
        head.wait_up()
        for node in others:
            node.start()
        for node in others:
            node.wait_up()

    def twin(self, of: str, *, name: str | None = None, credentials: Path | None = None) -> HostNode:
        """Another node on the same host; it is not started, and ends by itself."""
        command = list(self.nodes[of].command)
        command[command.index("--name") + 1] = name or of
        environment = {**self.environment, **({VARIABLE: str(credentials)} if credentials else {})}
        return HostNode(f"{name or of}-twin", command, self._home, environment)

    def index(self, name: str) -> int:
        return list(self.nodes).index(name)

    def stop(self) -> None:
        below = [(node, node.processes()) for node in self.nodes.values() if node.is_up()]
        for _, (first, *_) in below:
            first.terminate()
        for node, processes in below:
            _, left = psutil.wait_procs(processes, timeout=STOP_SECONDS)
            assert not left, f"node {node.name} has left {left} running: {node.output.read_text()}"


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def make_network(hosts: int) -> Network | Loopback:
    """Namespaces where they can be made, else loopback, with the reason printed."""
    try:
        if shutil.which("ip") is None:
            install("iproute2", lambda: shutil.which("ip") is not None)
        return Network(hosts)
    except (OSError, NotInstalled) as error:
        print(f"hosts are ports on loopback: no network namespaces here ({error})", file=sys.stderr)
        return Loopback(hosts)


@contextmanager
def running_lab(
    capabilities: dict[str, tuple[str, ...]], *, network: AnyNetwork | None = None, loss: float = LOSS
) -> Generator[Lab]:
    """A cluster with these members, by name, and what each says that it offers."""
    home = Path(tempfile.mkdtemp(prefix="palmette-lab-"))
    network = network or make_network(len(capabilities))
    lab = Lab(home, network, capabilities, loss)
    was = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(lab.credentials)
    try:
        lab.start()
        yield lab
    finally:
        try:
            lab.stop()
        finally:
            for node in lab.nodes.values():
                if node.process is not None:
                    node.kill()
            network.remove()
            shutil.rmtree(home)
            if was is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = was
