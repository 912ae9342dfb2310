"""The byte stream into an E2B sandbox: exact, and alive across broken connections; its end is told, with the cause."""

from __future__ import annotations

import asyncio

import pytest
from e2b import AsyncSandbox
from e2b_fixtures import SOON, eventually, machine_id, random_bytes, read_all, read_exactly
from e2b_fixtures import backend as backend
from e2b_fixtures import made as made
from e2b_fixtures import sdk as sdk
from e2b_fixtures import shared_stand_in as shared_stand_in
from e2b_fixtures import stand_in as stand_in
from machines_support import until
from support.e2b_stand_in import Fault, StandIn

from palmette.machines.e2b import E2bBackend
from palmette.machines.e2b.channel import E2bChannel, end_copies
from palmette.machines.e2b.relay import WINDOW


async def test_ten_megabytes_of_every_byte_go_there_and_come_back_as_they_were(backend: E2bBackend) -> None:
    channel = await backend.open_channel(["cat"])
    data = bytes(range(256)) * 4 + random_bytes(10 << 20)
    _, got = await asyncio.gather(channel.write(data), read_exactly(channel, len(data)))
    assert got == data


async def test_connections_that_break_lose_and_double_nothing(backend: E2bBackend, stand_in: StandIn) -> None:
    channel = await backend.open_channel(["cat"])
    data = random_bytes(4 << 20)
    writing = asyncio.create_task(channel.write(data))
    got = bytearray()
    for part in range(1, 9):
        got += await read_exactly(channel, max(0, len(data) * part // 9 - len(got)))
        await eventually(lambda: _cut(stand_in), "a stream to cut")
    got += await read_exactly(channel, len(data) - len(got))
    await writing
    assert got == data
    assert (await stand_in.report()).asked["POST /process.Process/Connect"] >= 5


async def test_an_idle_stream_survives_its_connection_too(backend: E2bBackend, stand_in: StandIn) -> None:
    channel = await backend.open_channel(["cat"])
    await stand_in.cut_streams()
    await channel.write(b"still here")
    assert await read_exactly(channel, 10) == b"still here"


async def test_input_whose_receipt_was_lost_is_sent_again_and_arrives_once(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    channel = await backend.open_channel(["cat"])
    await stand_in.fail(Fault(where="SendInput", after=True))
    await channel.write(b"once.")
    await channel.write(b"twice.")
    assert await read_exactly(channel, 11) == b"once.twice."
    assert (await stand_in.report()).asked["POST /process.Process/SendInput"] == 3


async def test_what_the_login_shell_prints_is_not_in_the_stream(backend: E2bBackend, stand_in: StandIn) -> None:
    sandbox = await _connected(backend, stand_in)
    await sandbox.commands.run("echo 'echo welcome; echo \"<0 0 - AAAA\"' > .bash_profile")
    channel = await backend.open_channel(["echo", "hello"])
    assert await read_all(channel) == b"hello\n"


async def test_a_writer_waits_while_the_program_does_not_read(backend: E2bBackend, stand_in: StandIn) -> None:
    sandbox = await _connected(backend, stand_in)
    size = 2 * WINDOW
    program = f"until [ -e go ]; do sleep 0.02; done; head -c {size} | md5sum"
    channel = await backend.open_channel(["sh", "-c", program])
    writing = asyncio.create_task(channel.write(bytes(size)))
    await eventually(lambda: _sent(stand_in, 8), "eight pieces to be sent")
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    await sandbox.commands.run("touch go")
    await writing
    assert (await read_all(channel)).startswith(b"96995b58d4cbf6aaa9041b4f00c7f6ae")  # of 8 MiB of zeros


async def test_a_program_that_is_not_read_is_held_up(backend: E2bBackend) -> None:
    channel = await backend.open_channel(["sh", "-c", f"head -c {3 * WINDOW} /dev/zero; echo written >&2"])
    await read_exactly(channel, 1)
    done, _ = await asyncio.wait([asyncio.create_task(_complained(channel))], timeout=0.3)
    assert not done
    assert len(await read_all(channel)) > 2 * WINDOW
    await _complained(channel)


async def test_the_end_of_the_program_is_the_end_of_the_stream_and_its_complaint_is_kept(backend: E2bBackend) -> None:
    channel = await backend.open_channel(["sh", "-c", "echo out; echo woe >&2; exit 3"])
    assert await read_all(channel) == b"out\n"
    assert "woe" in channel.complaint
    assert "ended with 3" in channel.complaint
    assert channel.lost is None
    with pytest.raises(ConnectionError, match="woe"):
        await channel.write(b"anybody?")


async def test_a_program_that_does_not_exist_is_the_end_of_the_stream(backend: E2bBackend) -> None:
    channel = await backend.open_channel(["no-such-program"])
    assert await read_all(channel) == b""
    assert "no-such-program" in channel.complaint


async def test_closing_shows_the_program_the_end_of_its_input(backend: E2bBackend, stand_in: StandIn) -> None:
    sandbox = await _connected(backend, stand_in)
    channel = await backend.open_channel(["sh", "-c", "cat; echo end > seen"])
    await channel.close()
    await channel.close()
    assert await channel.read() == b""
    await eventually(lambda: sandbox.files.exists("seen"), "the program to see the end")
    await channel.gone()


async def test_a_cancelled_read_loses_nothing(backend: E2bBackend) -> None:
    channel = await backend.open_channel(["cat"])
    reading = asyncio.create_task(channel.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    await channel.write(b"kept")
    assert await read_exactly(channel, 4) == b"kept"


async def test_a_killed_relay_ends_the_stream_but_not_the_sandbox(backend: E2bBackend, stand_in: StandIn) -> None:
    channel = await backend.open_channel(["sh", "-c", "kill -9 -1"])
    async with asyncio.timeout(SOON):
        assert await channel.read() == b""
    assert channel.lost is None
    assert await backend.examine() is None
    again = await backend.open_channel(["echo", "here"])
    assert await read_all(again) == b"here\n"


async def test_relays_of_another_machine_are_ended_in_a_copied_sandbox_and_ones_own_are_not(
    backend: E2bBackend, stand_in: StandIn
) -> None:
    sandbox = await _connected(backend, stand_in)
    other = await E2bChannel.open(
        sandbox, ["sh", "-c", "sleep 1000 & echo $!; wait"], machine=machine_id(), overdue=lambda: False
    )
    left = (await other.read()).decode().strip()
    own = await backend.open_channel(["cat"])
    assert await end_copies(sandbox, backend.id) == 1
    async with asyncio.timeout(SOON):
        assert await read_all(other) == b""
    await own.write(b"unharmed")
    assert await read_exactly(own, 8) == b"unharmed"
    await sandbox.commands.run(f"kill -0 {left}")  # what ran in the copied machine is its own, and runs on
    await other.close()
    await other.gone()


async def _connected(backend: E2bBackend, stand_in: StandIn) -> AsyncSandbox:
    return await AsyncSandbox.connect(str(backend.sandbox_id), timeout=60, **stand_in.connection)


async def _complained(channel: E2bChannel) -> None:
    await until(lambda: "written" in channel.complaint, "a complaint")


async def _cut(stand_in: StandIn) -> bool:
    return await stand_in.cut_streams() == 1


async def _sent(stand_in: StandIn, times: int) -> bool:
    return (await stand_in.report()).asked.get("POST /process.Process/SendInput", 0) >= times
