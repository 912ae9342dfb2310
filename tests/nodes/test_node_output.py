"""What a node's process prints reaches its member to the last word, and never holds the process up."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from node_processes import until

from palmette.actors.cluster import output
from palmette.actors.cluster.output import BURST, MAX_LINE, Line, OutputReaders, log_output

PRINTER = """
import os, subprocess, sys, time
from palmette.actors.cluster.output import connect_output
connect_output(sys.argv[1], "node-1", sys.argv[2])
exec(sys.argv[3])
"""


class Member:
    """What a member hears of its nodes."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "output"
        self.heard: list[Line] = []
        self.readers = OutputReaders(self.hear)

    def hear(self, node: str, lines: list[Line]) -> None:
        assert node == "node-1"
        assert lines
        self.heard += lines

    def texts(self, stream: str) -> list[str]:
        return [line.text for line in self.heard if line.stream == stream]

    async def run(self, code: str, token: str = "secret") -> int:
        """The status of a node's process that runs ``code``."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", PRINTER, str(self.socket), token, code, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            return await asyncio.wait_for(process.wait(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Member]:
    made = Member(tmp_path)
    await made.readers.open(made.socket)
    made.readers.expect("node-1", "secret")
    yield made
    await made.readers.close()


async def test_both_streams_and_those_of_what_the_node_starts_are_read(member: Member) -> None:
    code = "print('hello'); print('oh', file=sys.stderr); subprocess.run(['echo', 'from below'])"
    assert await member.run(code) == 0
    await until(lambda: len(member.heard) == 3)
    assert member.texts("stdout") == ["hello", "from below"]
    assert member.texts("stderr") == ["oh"]


async def test_the_last_words_of_a_process_that_is_killed_arrive(member: Member) -> None:
    assert await member.run("os.write(1, b'one\\nlast words, unfin'); os.kill(os.getpid(), 9)") == -9
    await until(lambda: len(member.heard) == 2)
    assert member.texts("stdout") == ["one", "last words, unfin"]


def accounted(member: Member) -> tuple[int, int]:
    """How many lines were heard, and of how many others it was heard that they were dropped."""
    news = [text for text in member.texts("stdout") if "were dropped" in text]
    return len(member.texts("stdout")) - len(news), sum(int(text[1:].split()[0]) for text in news)


async def test_a_node_that_floods_is_not_held_up_and_what_is_dropped_is_counted(member: Member) -> None:
    count = 3 * BURST // 100
    assert await member.run(f"for n in range({count}): print(f'{{n:099d}}')\nprint('the end', file=sys.stderr)") == 0
    await until(lambda: accounted(member)[0] + accounted(member)[1] == count)
    assert accounted(member)[1] > 0
    assert member.texts("stdout")[0] == "0" * 99
    assert member.texts("stderr") == ["the end"]


async def test_a_progress_bar_is_shown_as_it_stands_and_long_lines_are_cut(member: Member) -> None:
    code = f"print('10%\\r20%\\r30%'); print('x' * {2 * MAX_LINE + 5}); print('windows\\r'); print()"
    assert await member.run(code) == 0
    await until(lambda: len(member.heard) == 6)
    assert member.texts("stdout") == ["30%", "x" * MAX_LINE, "x" * MAX_LINE, "x" * 5, "windows", ""]


async def test_a_line_that_does_not_end_is_passed_on_all_the_same(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "UNFINISHED_SECONDS", 0.01)
    with connected(member, b'{"node":"node-1","token":"secret","stream":"stdout"}\nloading \xf0\x9f') as connection:
        await until(lambda: member.texts("stdout") == ["loading \ufffd"])
        connection.sendall(b"done\n")
        await until(lambda: member.texts("stdout")[1:] == ["done"])


@pytest.mark.parametrize(
    "header",
    [
        b'{"node":"node-1","token":"wrong","stream":"stdout"}\nhello\n',
        b'{"node":"node-2","token":"secret","stream":"stdout"}\nhello\n',
        b'{"node":"node-1","token":"secret","stream":"stdin"}\nhello\n',
        b"hello\n",
        b"x" * 5000,
    ],
)
async def test_whoever_does_not_say_properly_who_it_is_is_cut_off(member: Member, header: bytes) -> None:
    with connected(member, header) as connection:
        connection.setblocking(False)
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1), 20) == b""
    assert member.heard == []


async def test_a_node_that_has_ended_cannot_come_back(member: Member) -> None:
    member.readers.forget("node-1")
    await member.run("print('hello')")
    assert member.heard == []


def connected(member: Member, data: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(member.socket))
    connection.sendall(data)
    return connection


def test_lines_are_logged_under_the_actors_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "palmette.node"):
        log_output("/trainer", 17, [Line("stdout", "step 1: 100 %s", 5.0), Line("stderr", "oh", 6.0)])
    assert [(r.name, r.levelname, r.getMessage(), r.processName, r.process, r.created) for r in caplog.records] == [
        ("palmette.node.stdout", "INFO", "step 1: 100 %s", "/trainer", 17, 5.0),
        ("palmette.node.stderr", "WARNING", "oh", "/trainer", 17, 6.0),
    ]
