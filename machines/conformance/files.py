"""Files and archives: exact, whole, and never outside."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tarfile

from palmette.machines.conformance.kit import Bed, check, expect, expect_equal, expect_raises, host_secret
from palmette.machines.errors import FileTooLarge, MachineError, NotAFile, PathEscapes

ODD_NAMES = ("with space", "-dash", "new\nline", "ä€😀", "'q\"", "*", "$HOME", ".hidden")
NOTHING_THERE = (FileNotFoundError, PathEscapes, NotADirectoryError)


@check("What is put is what is got, whatever it is.")
async def round_trip(bed: Bed) -> None:
    for data in (b"", b"no newline", bytes(range(256)) * 100, os.urandom(3 << 20)):
        await bed.machine.put("file", data)
        expect(await bed.machine.get("file") == data, f"{len(data)} bytes came back changed")


@check("Commands see what was put, and get sees what commands wrote.")
async def same_files(bed: Bed) -> None:
    await bed.machine.put("in", b"word")
    await bed.machine.exec("cat in in >out")
    expect_equal(await bed.machine.get("out"), b"wordword", "the command's file")


@check("A file has the mode that it is put with.")
async def modes(bed: Bed) -> None:
    await bed.machine.put("script", b"#!/bin/sh\necho ran\n", mode=0o755)
    expect_equal((await bed.machine.exec(["./script"])).stdout, b"ran\n", "the script's output")
    await bed.machine.put("plain", b"", mode=0o600)
    expect_equal((await bed.machine.exec("stat -c %a plain")).stdout, b"600\n", "the mode")


@check("Directories above a file that is put are made.")
async def made_directories(bed: Bed) -> None:
    await bed.machine.put("a/b/c/file", b"deep")
    expect_equal((await bed.machine.exec("cat a/b/c/file")).stdout, b"deep", "what is there")


@check("A file that is put again is replaced as a whole, and others see the old or the new one.")
async def whole_files(bed: Bed) -> None:
    versions = [bytes([65 + n]) * 200_000 for n in range(2)]
    await bed.machine.put("file", versions[0])

    async def write() -> None:
        for n in range(10):
            await bed.machine.put("file", versions[n % 2])

    work = asyncio.ensure_future(write())
    while not work.done():
        expect(await bed.machine.get("file") in versions, "a reader sees half of a file")
    await work


@check("Putting a file replaces a link in its place, and does not follow it.")
async def links_replaced(bed: Bed) -> None:
    await bed.machine.exec("echo kept >target; ln -s target link")
    await bed.machine.put("link", b"new")
    expect_equal((await bed.machine.exec("cat target; test -L link || cat link")).stdout, b"kept\nnew", "the two files")


@check("Names may hold any character.")
async def odd_names(bed: Bed) -> None:
    for name in ODD_NAMES:
        await bed.machine.put(name, name.encode())
        expect_equal(await bed.machine.get(name), name.encode(), f"the file {name!r}")
    expect_equal(await bed.machine.list(), sorted(ODD_NAMES), "the list")


@check("A file that is not there is FileNotFoundError; a directory, IsADirectoryError.")
async def no_file(bed: Bed) -> None:
    await bed.machine.put("dir/file", b"")
    await expect_raises(FileNotFoundError, bed.machine.get("none"))
    await expect_raises(FileNotFoundError, bed.machine.get("dir/none"))
    await expect_raises(IsADirectoryError, bed.machine.get("dir"))
    await expect_raises(IsADirectoryError, bed.machine.put("dir", b""))
    await expect_raises(NotADirectoryError, bed.machine.put("dir/file/below", b""))


@check("What is no regular file is not read.")
async def no_regular_file(bed: Bed) -> None:
    await bed.machine.exec("mkfifo fifo")
    async with asyncio.timeout(10.0):
        await expect_raises(NotAFile, bed.machine.get("fifo"))


@check("A file larger than was allowed is FileTooLarge.")
async def large_file(bed: Bed) -> None:
    await bed.machine.put("file", b"x" * 1001)
    await expect_raises(FileTooLarge, bed.machine.get("file", max_bytes=1000))
    expect_equal(len(await bed.machine.get("file", max_bytes=1001)), 1001, "the length")


@check("A file that grows while it is read comes back as some whole beginning of it.")
async def growing_file(bed: Bed) -> None:
    process = await bed.machine.open("i=100000; while :; do echo $i; i=$((i + 1)); done >log")
    try:
        for _ in range(5):
            await asyncio.sleep(0.05)
            try:
                lines = (await bed.machine.get("log")).split(b"\n")[:-1]
            except FileNotFoundError:
                continue
            expect_equal(lines, [b"%d" % (100_000 + n) for n in range(len(lines))], "the beginning")
    finally:
        await process.kill()
        await process.wait()


@check("`..` leads nowhere.")
async def dots(bed: Bed) -> None:
    with host_secret() as (directory, secret):
        for path in ("../" * 30 + directory[1:] + "/file", "a/../../../../../../.." + directory + "/file"):
            try:
                got = await bed.machine.get(path)
            except (*NOTHING_THERE, MachineError):
                continue
            expect(got != secret, "a file of the controller's host was read")
    await expect_raises((PathEscapes, FileNotFoundError), bed.machine.get("../file"))
    await expect_raises((PathEscapes, FileNotFoundError), bed.machine.list("../../.."))


@check("Links lead nowhere out of the machine, neither reading nor writing.")
async def links(bed: Bed) -> None:
    with host_secret() as (directory, secret):
        await bed.machine.exec(
            ["sh", "-c", 'ln -s "$1" dir; ln -s "$1/file" file; ln -s /proc/self/root root', "sh", directory]
        )
        for path in ("dir/file", "file", f"root{directory}/file"):
            try:
                got = await bed.machine.get(path)
            except (*NOTHING_THERE, MachineError, OSError):
                continue
            expect(got != secret, f"{path} led to a file of the controller's host")
        for path in ("dir/new", "file"):
            try:
                await bed.machine.put(path, b"written")
            except (*NOTHING_THERE, MachineError, OSError):
                continue


@check("A path of the controller's host means nothing in the machine.")
async def absolute_paths(bed: Bed) -> None:
    with host_secret() as (directory, secret):
        try:
            got = await bed.machine.get(f"{directory}/file")
        except (*NOTHING_THERE, MachineError):
            return
        expect(got != secret, "a file of the controller's host was read")


@check("A list is sorted, and holds what begins with a dot; of what is no directory there is none.")
async def lists(bed: Bed) -> None:
    for name in ("b", "a", ".c", "d/e"):
        await bed.machine.put(name, b"")
    expect_equal(await bed.machine.list(), [".c", "a", "b", "d"], "the list")
    expect_equal(await bed.machine.list("d"), ["e"], "the list below")
    await expect_raises(FileNotFoundError, bed.machine.list("none"))
    await expect_raises(NotADirectoryError, bed.machine.list("a"))


def _tar(members: dict[str, bytes | str], *, mode: int = 0o644) -> bytes:
    """An archive; a string is the target of a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _names(archive: bytes) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isreg() else None
            name = member.name.removeprefix("./")
            found[name] = member.linkname if member.issym() else None if file is None else file.read()
    found.pop(".", None)
    found.pop("", None)
    return found


@check("A directory goes in and comes out as an archive: files, modes, links, empty directories.")
async def archives(bed: Bed) -> None:
    await bed.machine.put_archive("tree", _tar({"a": b"1", "sub/b": b"\0" * 5000, "link": "sub/b"}, mode=0o750))
    result = await bed.machine.exec("cat tree/link | wc -c; stat -c %a tree/a; mkdir tree/empty")
    expect_equal(result.stdout.split(), [b"5000", b"750"], "what the command saw")
    wanted = {"a": b"1", "sub": None, "sub/b": b"\0" * 5000, "link": "sub/b", "empty": None}
    expect_equal(_names(await bed.machine.get_archive("tree")), wanted, "the archive")


@check("An archive may be compressed.")
async def compressed(bed: Bed) -> None:
    await bed.machine.put_archive(".", gzip.compress(_tar({"file": b"x"})))
    expect_equal(await bed.machine.get("file"), b"x", "the file")


@check("Of an archive that leads out, nothing is unpacked.")
async def hostile_archives(bed: Bed) -> None:
    for members in (
        {"good": b"", "../bad": b""},
        {"good": b"", "/../../bad": b""},
        {"good": b"", "way": "/etc", "way/bad": b""},
        {"good": b"", "way": "../../..", "way/bad": b""},
    ):
        await expect_raises(PathEscapes, bed.machine.put_archive("into", _tar(dict(members))))
        expect("into" not in await bed.machine.list() or not await bed.machine.list("into"), "something was unpacked")


@check("What is no archive is a ValueError; one too large to fetch, FileTooLarge.")
async def no_archives(bed: Bed) -> None:
    await expect_raises(ValueError, bed.machine.put_archive("x", b"this is no archive" * 100))
    await bed.machine.put("big/file", b"x" * 100_000)
    await expect_raises(FileTooLarge, bed.machine.get_archive("big", max_bytes=50_000))
    await expect_raises(FileNotFoundError, bed.machine.get_archive("none"))


@check("Ten thousand files go in, are listed, and come out.")
async def many_files(bed: Bed) -> None:
    members: dict[str, bytes | str] = {f"d/{n:05}": b"%d" % n for n in range(10_000)}
    await bed.machine.put_archive(".", _tar(members))
    expect_equal(len(await bed.machine.list("d")), 10_000, "the number of files")
    expect_equal(await bed.machine.get("d/04321"), b"4321", "one of them")
    archive = _names(await bed.machine.get_archive("d"))
    expect_equal(len(archive), 10_000, "the number of files in the archive")


@check("A failure of the disk's is an error, and the machine goes on.")
async def after_errors(bed: Bed) -> None:
    await expect_raises((OSError, MachineError), bed.machine.put("x" * 300, b""))
    await bed.machine.put("fine", b"fine")
    expect_equal(await bed.machine.get("fine"), b"fine", "the next file")
