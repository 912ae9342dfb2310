"""Finish what must not be left half done, whoever loses patience meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def sheltered(work: Coroutine[object, object, T]) -> T:
    """Run ``work`` to its end; a cancellation meanwhile is delivered afterwards. ``work`` has its own deadline."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # the cancellation is what the caller learns of
        raise cancelled
    return task.result()
