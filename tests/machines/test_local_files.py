"""Files of a local machine: what goes in comes out, and no path leads out of the scratch directory."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from palmette.machines import FileTooLarge, LocalMachine, MachineLost, NotAFile, PathEscapes, paths
from palmette.machines.local import space as local_space


@pytest.fixture(params=["openat2", "walk"])
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to resolve a path: by the kernel, and component by component."""
    kind: str = request.param
    if kind == "walk":
        monkeypatch.setattr(paths, "has_openat2", lambda: False)
    elif not paths.has_openat2():
        pytest.skip("this kernel has no openat2")
    return kind


pytestmark = pytest.mark.usefixtures("resolution")


@pytest.mark.parametrize("size", [0, 1, local_space.SMALL, local_space.SMALL + 1, 3_000_000])
async def test_a_file_comes_back_as_it_was_put(machine: LocalMachine, size: int) -> None:
    data = os.urandom(size)
    await machine.put("file", data)
    assert await machine.get("file") == data


async def test_directories_above_a_file_are_made_and_listed(machine: LocalMachine) -> None:
    await machine.put("a/b/c.txt", b"c")
    await machine.put("a/./b//d.txt", b"d")
    await machine.put("/a/e.txt", b"e")
    assert await machine.list() == ["a"]
    assert await machine.list("a") == ["b", "e.txt"]
    assert await machine.list("/a/b/") == ["c.txt", "d.txt"]
    assert await machine.get("a/b/../e.txt") == b"e"


async def test_modes_are_set_whatever_the_umask(machine: LocalMachine) -> None:
    before = os.umask(0o077)
    try:
        await machine.put("tool", b"", mode=0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE((machine.directory / "tool").stat().st_mode) == 0o755


async def test_putting_again_replaces_the_whole_file(machine: LocalMachine) -> None:
    await machine.put("file", b"long content", mode=0o600)
    await machine.put("file", b"short")
    assert await machine.get("file") == b"short"
    assert await machine.list() == ["file"]


async def test_names_that_are_not_utf8_survive_a_round_trip(machine: LocalMachine) -> None:
    await machine.exec(r"printf x >$(printf '\377\376')")
    (name,) = await machine.list()
    assert await machine.get(name) == b"x"


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/../secret", "../../../../../../etc/passwd", ".."])
async def test_a_path_that_climbs_out_is_refused(machine: LocalMachine, path: str) -> None:
    (machine.directory.parent / "secret").write_text("secret")
    with pytest.raises(PathEscapes, match="leads out"):
        await machine.get(path)
    with pytest.raises(PathEscapes, match="leads out"):
        await machine.list(path)
    if path != "..":
        with pytest.raises(PathEscapes, match="leads out"):
            await machine.put(path, b"overwritten")
    assert (machine.directory.parent / "secret").read_text() == "secret"


LINKS: dict[str, Callable[[Path], object]] = {
    "an absolute link": lambda outside: outside / "secret",
    "a relative link": lambda outside: Path("../../../outside/secret"),
    "a link of the kernel's": lambda outside: Path(f"/proc/{os.getpid()}/root{outside}/secret"),
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS.keys())
async def test_a_link_to_the_outside_does_not_lead_there(
    machine: LocalMachine, tmp_path: Path, target: Callable[[Path], Path]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    os.symlink(target(outside), machine.directory / "link")
    with pytest.raises((FileNotFoundError, PathEscapes)):
        await machine.get("link")
    await machine.put("link", b"mine")  # replaces the link
    assert await machine.get("link") == b"mine"
    assert (outside / "secret").read_text() == "secret"


@pytest.mark.parametrize("absolute", [True, False])
async def test_a_linked_directory_outside_is_neither_read_nor_written(
    machine: LocalMachine, tmp_path: Path, absolute: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    os.symlink(outside if absolute else "../../../outside", machine.directory / "door")
    for attempt in (machine.get("door/secret"), machine.list("door")):
        with pytest.raises((FileNotFoundError, PathEscapes)):
            await attempt
    with pytest.raises((OSError, PathEscapes)):
        await machine.put("door/new", b"x")
    assert os.listdir(outside) == ["secret"]


async def test_a_link_that_stays_inside_is_followed_or_refused_with_the_reason(
    machine: LocalMachine, resolution: str
) -> None:
    await machine.put("real/file", b"x")
    os.symlink("real", machine.directory / "door")
    if resolution == "openat2":
        assert await machine.get("door/file") == b"x"
    else:
        with pytest.raises(PathEscapes, match="symbolic link 'door'"):
            await machine.get("door/file")


async def test_a_command_cannot_be_started_outside(machine: LocalMachine, tmp_path: Path) -> None:
    with pytest.raises(PathEscapes):
        await machine.exec("pwd", cwd="../..")


async def test_special_files_are_neither_opened_nor_replaced(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(machine.directory / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(machine.directory)  # the path of a socket must be short
        server.bind("socket")
        monkeypatch.chdir("/")
    for name, kind in (("fifo", "FIFO"), ("socket", "socket")):
        with pytest.raises(NotAFile, match=kind):
            await machine.get(name)
        with pytest.raises(NotAFile, match=kind):
            await machine.put(name, b"x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
async def test_a_device_is_not_read(machine: LocalMachine) -> None:
    try:
        os.mknod(machine.directory / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this root cannot make devices")
    with pytest.raises(NotAFile, match="device"):
        await machine.get("zero")


async def test_what_is_missing_or_of_the_wrong_kind_has_pythons_own_errors(machine: LocalMachine) -> None:
    await machine.put("directory/file", b"")
    with pytest.raises(FileNotFoundError):
        await machine.get("nothing")
    with pytest.raises(FileNotFoundError):
        await machine.list("nothing")
    with pytest.raises(IsADirectoryError):
        await machine.get("directory")
    with pytest.raises(IsADirectoryError):
        await machine.put("directory", b"")
    with pytest.raises(IsADirectoryError):
        await machine.put("directory/", b"")
    with pytest.raises(NotADirectoryError):
        await machine.list("directory/file")
    with pytest.raises(NotADirectoryError):
        await machine.put("directory/file/below", b"")
    assert await machine.list("directory") == ["file"]


@pytest.mark.parametrize("path", ["", "a\0b"])
async def test_a_path_that_is_none_is_refused(machine: LocalMachine, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        await machine.get(path)


@pytest.mark.parametrize("bound", [10, local_space.SMALL + 10])
async def test_a_file_larger_than_allowed_is_refused(machine: LocalMachine, bound: int) -> None:
    await machine.put("file", bytes(bound + 1))
    with pytest.raises(FileTooLarge, match=f"{bound + 1} bytes and at most {bound}"):
        await machine.get("file", max_bytes=bound)
    assert len(await machine.get("file", max_bytes=bound + 1)) == bound + 1


async def test_a_sparse_giant_costs_nothing(machine: LocalMachine) -> None:
    await machine.exec("truncate -s 1T giant")
    with pytest.raises(FileTooLarge):
        await machine.get("giant")


async def test_a_full_disk_is_the_hosts_failure_and_leaves_no_half_file(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.put("file", b"old")
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MachineLost, match="No space left"):
        await machine.put("file", b"new")
    monkeypatch.undo()
    assert await machine.get("file") == b"old"
    assert await machine.list() == ["file"]


async def test_a_hanging_file_system_is_a_lost_machine(machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    released = threading.Event()

    def hang(root: int, path: str) -> list[str]:
        released.wait(60)
        return []

    monkeypatch.setattr(local_space, "FILE_DEADLINE", 0.05)
    monkeypatch.setattr(local_space, "list_directory", hang)
    try:
        with pytest.raises(MachineLost, match="file system hangs"):
            await machine.list()
    finally:
        released.set()
