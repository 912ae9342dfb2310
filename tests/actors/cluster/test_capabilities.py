"""What a host offers: found, corrected and declared."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from palmette.actors.cluster import capabilities
from palmette.actors.cluster.capabilities import Gpu, discover, parse_capabilities

SMI = """#!/bin/sh
cat <<'END'
0, NVIDIA H200, 143771, GPU-aaaa-1111
1, NVIDIA H200, 143771, GPU-bbbb-2222
2, NVIDIA GB10, [N/A], GPU-cccc-3333
END
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose nvidia-smi knows three GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


@pytest.fixture
def no_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_SMI", ("nvidia-smi-that-is-not-there",))


def test_processors_and_memory_are_those_that_this_process_may_use() -> None:
    found = discover()
    assert 0 < found.cpus <= (os.cpu_count() or 1)
    assert 0 < found.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"slice/job/cpu.max": "150000 100000", "slice/memory.max": "1048576"}, 1.5, 1 << 20),
        ({"slice/job/cpu.max": "max 100000", "slice/job/memory.max": "max"}, None, None),
        ({"cpu.max": "50000 100000"}, 0.5, None),
        (
            {
                "cpu,cpuacct/slice/cpu.cfs_quota_us": "25000",
                "cpu,cpuacct/slice/cpu.cfs_period_us": "100000",
                "memory/slice/job/memory.limit_in_bytes": "2097152",
            },
            0.25,
            2 << 20,
        ),
        ({"cpu,cpuacct/slice/cpu.cfs_quota_us": "-1", "cpu,cpuacct/slice/cpu.cfs_period_us": "100000"}, None, None),
    ],
)
def test_the_control_groups_limits_are_heeded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    cpus: float | None,
    memory: int | None,
) -> None:
    without = discover({"gpu": "0"})
    proc = tmp_path / "cgroup"
    proc.write_text("4:memory:/slice/job\n3:cpu,cpuacct:/slice/job\n0::/slice/job\n")
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    monkeypatch.setattr(capabilities, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(capabilities, "_OWN_GROUP", proc)
    found = discover({"gpu": "0"})
    assert found.cpus == (cpus if cpus is not None else len(os.sched_getaffinity(0)))
    assert found.memory == memory if memory is not None else found.memory >= without.memory


@pytest.mark.usefixtures("smi")
def test_gpus_are_found_by_nvidia_smi() -> None:
    assert discover().gpus == (
        Gpu(0, "NVIDIA H200", 143771 << 20, "GPU-aaaa-1111"),
        Gpu(1, "NVIDIA H200", 143771 << 20, "GPU-bbbb-2222"),
        Gpu(2, "NVIDIA GB10", 0, "GPU-cccc-3333"),
    )


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize(
    ("variable", "indices"),
    [("2,0", [2, 0]), ("", []), ("GPU-bbbb", [1]), ("1,7,0", [1]), ("-1", []), ("0,0", [0]), ("MIG-1", [])],
)
def test_gpus_that_this_process_may_not_see_are_not_offered(
    monkeypatch: pytest.MonkeyPatch, variable: str, indices: list[int]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert [gpu.index for gpu in discover().gpus] == indices


@pytest.mark.usefixtures("smi")
def test_fewer_gpus_may_be_declared_than_there_are_but_not_more() -> None:
    assert [gpu.uuid for gpu in discover({"gpu": "1"}).gpus] == ["GPU-aaaa-1111"]
    with pytest.raises(ValueError, match="gpu=4 was declared, but nvidia-smi knows 3"):
        discover({"gpu": "4"})


@pytest.mark.usefixtures("no_smi")
def test_gpus_may_be_declared_where_nobody_knows_any() -> None:
    assert discover({"gpu": "2", "gpu_memory": "24GiB"}).gpus == (
        Gpu(0, "GPU", 24 << 30, ""),
        Gpu(1, "GPU", 24 << 30, ""),
    )
    with pytest.raises(ValueError, match="declare gpu=1 as well"):
        discover({"gpu_memory": "24GiB"})


def test_a_driver_that_hangs_is_named_and_can_be_left_out(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(capabilities, "SMI_SECONDS", 0.1)
    with pytest.raises(ValueError, match="the driver hangs; declare gpu=0"):
        discover()
    assert discover({"gpu": "0"}).gpus == ()


def test_a_host_without_a_driver_has_no_gpu(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert discover().gpus == ()


def test_a_docker_daemon_counts_when_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert not discover().docker
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.recv(100)
                link.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

        daemon = threading.Thread(target=answer)
        daemon.start()
        assert discover().docker
        daemon.join()
    assert not discover({"docker": "no"}).docker


def test_words_are_labels_and_numbers_are_counted() -> None:
    found = discover(parse_capabilities(["zone=eu", "label=fast", "tokens=5", "cpus=3", "memory=1GiB", "ssh=yes"]))
    assert found.labels == {"zone": "eu", "label": "fast"}
    assert found.resources == {"tokens": 5.0}
    assert (found.cpus, found.memory, found.ssh) == (3.0, 1 << 30, True)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["gpu"], "NAME=VALUE"),
        (["zone=eu", "zone=us"], "'zone' is said twice: 'eu' and 'us'"),
        (["gpu=many"], "'gpu' cannot be read: it must be a whole number from 0 on, got 'many'"),
        (["gpu=1.5"], "whole number"),
        (["cpus=-1"], "from 0 on, got '-1'"),
        (["cpus=inf"], "from 0 on, got 'inf'"),
        (["memory=much"], "'memory' cannot be read: a size is"),
        (["docker=perhaps"], "yes or no"),
        (["zone="], "'zone' has no value"),
        (["rack-id=7"], "cannot be called 'rack-id'"),
        (["node=a"], "cannot be called 'node'"),
        (["tokens=-5"], "'tokens'.*from 0 on"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        discover(parse_capabilities(texts))
