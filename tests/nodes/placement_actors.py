"""Actors for the tests of placement. In a module of their own: node processes import it."""

from __future__ import annotations

import asyncio
import os

from palmette.actors import Actor, endpoint

AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
"""What a library that looks when it is imported has seen."""


class Resident(Actor):
    """Lives where it was placed, or ends as it is told."""

    def __init__(self, end: str = "") -> None:
        self.end = end

    async def started(self) -> None:
        if self.end == "raise":
            raise ValueError("no such model")
        if self.end == "die":
            os.kill(os.getpid(), 9)
        if self.end.startswith("/"):
            os.close(os.open(self.end, os.O_CREAT))
            await asyncio.sleep(1000)

    @endpoint
    async def devices(self) -> tuple[str, str]:
        return AT_IMPORT, os.environ.get("CUDA_VISIBLE_DEVICES", "not set")

    @endpoint
    async def crash(self) -> None:
        raise RuntimeError("as told")

    @endpoint
    async def die(self) -> None:
        os.kill(os.getpid(), 9)
