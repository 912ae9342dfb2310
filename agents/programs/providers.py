"""Harnesses by their names, and what they share of a model's provider: a limiter, and a recording proxy where needed.

Every model endpoint has one limiter, which all agents of the system ask before each request. ``react`` sends its
requests itself; for ``pi`` and ``cli:COMMAND`` there is a proxy behind the limiter, with the key from this process's
environment. Both are started when the first agent needs them, at the top of the tree, and end after all agents.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING, Final, cast

from palmette.actors import Actor, Ref, System
from palmette.agents.errors import ConfigurationError
from palmette.agents.harness import Harness, HarnessFactory, HarnessSetup
from palmette.agents.names import parse_model
from palmette.agents.openai_client import OPENAI_URL
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.agents.react_harness import react_harness
from palmette.supervisors import Backoff, ChildSpec, child

if TYPE_CHECKING:
    from palmette.agents.limiter import Limiter
    from palmette.agents.proxy import Proxy

BACKOFF: Final = Backoff(min=0.1, max=10.0)
"""Of limiters and proxies: they are back before the agents that they let down."""


class Providers:
    """Those of a system of programs. Limiters and proxies are children of the supervisor at the address ``top``."""

    def __init__(self, top: str) -> None:
        self._top = top.rstrip("/")
        self._numbers: dict[str, int] = {}
        self._started: set[str] = set()
        self._lock = asyncio.Lock()

    async def harness(self, system: System, text: str, *, model: str) -> HarnessFactory:
        """The harness that ``text`` names, for an agent with ``model``, which is written as on the command line.

        Raises:
            UnknownAgent, UnknownModel: there is none of that name.
            ConfigurationError: a harness that is a program, and no model.
            StartRefused: the proxy cannot start; the endpoint's key is missing, for example.
        """
        from palmette.agents.harnesses import check_harness, harness_named

        if text != "react":
            check_harness(text)
        if not model:
            if text == "react":
                return react_harness()  # whose own complaint says more
            raise ConfigurationError(f"which model is behind {text!r}? pass model= to agent(), as in openai/gpt-5")
        named = parse_model(model)
        base_url = named.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        if text == "react":
            return react_harness(limiter=await self._limiter(system, base_url))
        make = harness_named(text, await self._proxy(system, base_url))

        def with_plain_name(setup: HarnessSetup) -> Harness:
            return make(dataclasses.replace(setup, model=named.name))

        return with_plain_name

    async def _limiter(self, system: System, base_url: str) -> Ref[Limiter]:
        from palmette.agents.limiter import Limiter

        spec = child(Limiter, name=f"model-limiter-{self._number(base_url)}", backoff=BACKOFF)
        return system.ref_at(await self._start(system, cast("ChildSpec[Actor]", spec)), Limiter)

    async def _proxy(self, system: System, base_url: str) -> Ref[Proxy]:
        from palmette.agents.proxy import Proxy, Upstream

        limiter = await self._limiter(system, base_url)
        name = f"model-proxy-{self._number(base_url)}"
        spec = child(Proxy, Upstream(base_url), limiter=limiter.path, name=name, backoff=BACKOFF)
        return system.ref_at(await self._start(system, cast("ChildSpec[Actor]", spec)), Proxy)

    def _number(self, base_url: str) -> int:
        return self._numbers.setdefault(base_url, len(self._numbers) + 1)

    async def _start(self, system: System, spec: ChildSpec[Actor]) -> str:
        """Where it lives, from the first time on."""
        path = f"{self._top}/{spec.name}"
        async with self._lock:
            if path not in self._started:
                await system.ref_at(self._top or "/", ProgramSupervisor).call(ProgramSupervisor.admit, spec, None)
                self._started.add(path)
        return path
