"""Harnesses by their names, and the recording proxies that stand between programs on machines and their models.

``react`` needs none. For ``pi`` and ``cli:COMMAND`` there is one proxy for each model endpoint, with a limiter before
it and the key from this process's environment. Both are started when the first agent needs them, at the top of the
tree, are shared by all agents of the system, and end after them.
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
    from palmette.agents.proxy import Proxy

BACKOFF: Final = Backoff(min=0.1, max=10.0)
"""Of proxies: they are back before the agents that they let down."""


class Proxies:
    """The proxies of a system of programs, below the supervisor at the address ``top``."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._names: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def harness(self, system: System, text: str, *, model: str) -> HarnessFactory:
        """The harness that ``text`` names, for an agent with ``model``, which is written as on the command line.

        Raises:
            UnknownAgent, UnknownModel: there is none of that name.
            ConfigurationError: a harness that is a program, and no model.
            StartRefused: the proxy cannot start; the endpoint's key is missing, for example.
        """
        if text == "react":
            return react_harness()
        from palmette.agents.harnesses import check_harness, harness_named

        check_harness(text)
        if not model:
            raise ConfigurationError(f"which model is behind {text!r}? pass model= to agent(), as in openai/gpt-5")
        named = parse_model(model)
        proxy = await self._proxy_for(system, named.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        make = harness_named(text, proxy)

        def with_plain_name(setup: HarnessSetup) -> Harness:
            return make(dataclasses.replace(setup, model=named.name))

        return with_plain_name

    async def _proxy_for(self, system: System, base_url: str) -> Ref[Proxy]:
        from palmette.agents.limiter import Limiter
        from palmette.agents.proxy import Proxy, Upstream

        async with self._lock:
            name = self._names.get(base_url)
            if name is None:
                number = len(self._names) + 1
                name = f"model-proxy-{number}"
                limiter = child(Limiter, name=f"model-limiter-{number}", backoff=BACKOFF)
                proxy = child(Proxy, Upstream(base_url), limiter=self._path(limiter.name), name=name, backoff=BACKOFF)
                for spec in (limiter, proxy):
                    await self._admit(system, cast("ChildSpec[Actor]", spec))
                self._names[base_url] = name
        return system.ref_at(self._path(name), Proxy)

    async def _admit(self, system: System, spec: ChildSpec[Actor]) -> None:
        await system.ref_at(self._top, ProgramSupervisor).call(ProgramSupervisor.admit, spec, None)

    def _path(self, name: str) -> str:
        return f"{self._top.rstrip('/')}/{name}"
