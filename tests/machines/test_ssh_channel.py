"""A program on the other host as a byte stream."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator

import pytest
from machines_support import until
from ssh_support import nothing_left, threads
from support.ssh_server import SshServer

from palmette.machines.ssh.address import parse_image, resolve
from palmette.machines.ssh.channel import SshChannel
from palmette.machines.ssh.connection import Connection
from palmette.machines.ssh.pool import pool

MiB = 1 << 20


@pytest.fixture
async def connection(ssh_server: SshServer) -> AsyncIterator[Connection]:
    seat = await pool().seat(resolve(parse_image(ssh_server.image().removeprefix("ssh://"))))
    yield seat.connection
    await seat.release()
    await nothing_left(ssh_server)


async def shell(connection: Connection, script: str, *, mark: bytes = b"") -> SshChannel:
    return await connection.session(["/bin/sh", "-c", script], mark=mark)


async def everything(channel: SshChannel) -> bytes:
    output = bytearray()
    async with asyncio.timeout(30):
        while piece := await channel.read():
            output += piece
        await channel.ended()
    return bytes(output)


async def test_what_goes_in_comes_out_in_order_and_whole(connection: Connection) -> None:
    channel = await shell(connection, "exec cat")
    data = b"".join(number.to_bytes(4, "big") for number in range(MiB))
    reading = asyncio.create_task(everything(channel))
    await channel.write(data)
    await channel.end_input()
    assert await reading == data
    assert channel.exit_status == 0


async def test_standard_error_is_kept_as_the_complaint_the_last_of_it_and_holds_nothing_up(
    connection: Connection,
) -> None:
    channel = await shell(
        connection, "head -c 8000000 /dev/zero | tr '\\0' e >&2; echo last words >&2; echo out; exit 3"
    )
    assert await everything(channel) == b"out\n"
    assert channel.complaint.endswith("eeelast words")
    assert len(channel.complaint) <= 4096
    assert channel.exit_status == 3


async def test_a_program_that_a_signal_ended_has_no_exit_status(connection: Connection) -> None:
    channel = await shell(connection, "kill -9 $$")
    assert await everything(channel) == b""
    assert channel.exit_status is None


async def test_a_writer_waits_while_the_program_does_not_read_and_others_do_not(connection: Connection) -> None:
    deaf = await shell(connection, "read line; exec cat >/dev/null")
    lively = await shell(connection, "exec cat")
    writing = asyncio.create_task(deaf.write(b"x" * (8 * MiB)))
    for _ in range(20):
        await lively.write(b"ping\n")
        assert await lively.read() == b"ping\n"
    assert not writing.done()
    writing.cancel()
    await deaf.close()
    await lively.close()
    await lively.ended()


async def test_a_writer_that_waited_goes_on_when_the_program_reads(connection: Connection) -> None:
    channel = await shell(connection, "sleep 0.3; exec wc -c")
    await channel.write(b"x" * (8 * MiB))
    await channel.end_input()
    assert await everything(channel) == f"{8 * MiB}\n".encode()


async def test_output_that_nobody_reads_is_held_up_by_the_window(connection: Connection) -> None:
    channel = await shell(connection, "head -c 20000000 /dev/zero; echo all written >&2")
    assert len(await channel.read()) > 0
    other = await shell(connection, "echo other")
    assert await everything(other) == b"other\n"
    assert channel.complaint == ""
    assert len(await everything(channel)) <= 20_000_000
    assert channel.complaint == "all written"


async def test_a_reader_that_is_cancelled_again_and_again_loses_nothing(connection: Connection) -> None:
    channel = await shell(connection, "seq 1 400000")
    output, ended = bytearray(), False
    while not ended:
        reading = asyncio.create_task(channel.read())
        await asyncio.sleep(0)
        reading.cancel()
        try:
            piece = await reading
        except asyncio.CancelledError:
            piece = await channel.read()
        output += piece
        ended = not piece
    assert output.split() == [str(number).encode() for number in range(1, 400_001)]


async def test_what_the_login_shell_says_first_is_no_output(connection: Connection) -> None:
    channel = await shell(connection, "echo welcome to MA; echo MARKED; echo output", mark=b"MARKED\n")
    assert await everything(channel) == b"output\n"
    assert channel.complaint == "welcome to MA"


async def test_without_the_mark_all_that_was_said_is_the_complaint(connection: Connection) -> None:
    channel = await shell(connection, "echo this account is closed; exit 1", mark=b"MARKED\n")
    assert await everything(channel) == b""
    assert channel.complaint == "this account is closed"


async def test_words_reach_the_program_as_they_are(connection: Connection) -> None:
    words = ["plain", "two words", "'quoted\"", "$HOME `id` \\ !x", "line\nbreak", "", "*", "~", "ü"]
    channel = await connection.session(["printf", "%s\\0", *words])
    assert (await everything(channel)).decode().split("\0")[:-1] == words
    assert shlex.split(shlex.join(words)) == words


async def test_a_channel_that_is_closed_ends_the_program_s_input_and_takes_nothing_more(connection: Connection) -> None:
    channel = await shell(connection, "cat; echo gone >&2; head -c 9000000 /dev/zero")
    await channel.close()
    await channel.close()
    with pytest.raises(ConnectionError):
        await channel.write(b"more")
    async with asyncio.timeout(10):
        await channel.ended()
    assert channel.exit_status == 0


async def test_writing_to_a_program_that_has_ended_is_a_connection_error(connection: Connection) -> None:
    channel = await shell(connection, "echo why >&2; exit 4")
    await channel.ended()
    assert channel.complaint == "why"
    with pytest.raises(ConnectionError):
        await channel.write(b"x")
    assert channel.exit_status == 4


async def test_no_thread_is_added_per_channel(connection: Connection) -> None:
    before = len(threads())
    channels = [await shell(connection, "exec cat") for _ in range(8)]
    await until(lambda: len(threads()) <= before, "the threads that opened them to end")
    for channel in channels:
        await channel.write(b"x")
        assert await channel.read() == b"x"
    assert len(threads()) <= before
    for channel in channels:
        await channel.close()
        await channel.ended()
