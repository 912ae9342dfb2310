"""A proxy in a system of its own, in front of the planned server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from openai import AsyncOpenAI

from palmette.actors import Ref, System
from palmette.agents.limiter import Limiter, LimiterSettings
from palmette.agents.proxy import CallEnded, Proxy, ProxyLine, Upstream
from palmette.supervisors import DynamicSupervisor, Supervisor, child

KEY = "sk-real-key-of-the-host"
KEY_ENV = "PALMETTE_TEST_KEY"


@contextlib.asynccontextmanager
async def proxy_system(upstream: Upstream, limiter: LimiterSettings | None = None) -> AsyncGenerator[System]:
    """With ``proxy`` (and ``limiter``) in it, and room for agents."""
    limiters = [] if limiter is None else [child(Limiter, limiter, name="limiter")]
    proxy = child(Proxy, upstream, name="proxy", limiter=None if limiter is None else "limiter")
    agents = DynamicSupervisor.spec(name="agents", max_restarts=100)
    async with System.start(Supervisor.spec(children=[*limiters, proxy, agents])) as system:
        yield system


def proxy_of(system: System) -> Ref[Proxy]:
    return system.whereis("proxy", Proxy)


@contextlib.asynccontextmanager
async def program(line: ProxyLine, *, token: str | None = None) -> AsyncGenerator[AsyncOpenAI]:
    """OpenAI's own client, as a program on a machine has it: with an address and a token, and nothing else."""
    client = AsyncOpenAI(base_url=line.session.base_url(), api_key=token or line.session.token, max_retries=0)
    try:
        yield client
    finally:
        await client.close()


async def next_call(calls: AsyncIterator[CallEnded]) -> CallEnded:
    async with asyncio.timeout(20):
        return await anext(calls)
