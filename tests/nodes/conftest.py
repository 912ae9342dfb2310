"""A system with process nodes, one for a whole module, for tests that kill only what they started themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from node_bench import Bench, bench_spec

from palmette.actors import System


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench() -> AsyncIterator[Bench]:
    async with System.start(bench_spec()) as system:
        yield Bench(system)


@pytest_asyncio.fixture(loop_scope="module")
async def bench(shared_bench: Bench) -> AsyncIterator[Bench]:
    """Leave ``here``, ``there`` and ``yonder`` alive, in the processes that they are in. All others are stopped."""
    yield shared_bench
    await shared_bench.clear()
