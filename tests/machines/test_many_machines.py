"""Two hundred local machines at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from machines_support import list_root

from palmette.machines import LocalMachine

MACHINES, COMMANDS = 200, 10


async def test_two_hundred_machines_at_once_run_ten_commands_each_without_an_error(root: Path) -> None:
    async def work(number: int) -> list[bytes]:
        async with LocalMachine(f"run-{number}") as machine:
            await machine.put("number", b"%d" % number)
            return [
                (await machine.exec(f"echo $(cat number) {turn}", timeout=100.0)).stdout for turn in range(COMMANDS)
            ]

    answers = await asyncio.gather(*(work(number) for number in range(MACHINES)))
    assert answers == [[b"%d %d\n" % (number, turn) for turn in range(COMMANDS)] for number in range(MACHINES)]
    assert list_root(root) == []
