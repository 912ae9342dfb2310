"""How a program comes by agents and machines: children of its own, that have left nothing when they could not start."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import msgspec

from palmette.actors import Actor, DeadlineExceeded, Shutdown, deadline
from palmette.actors.ending import settle
from palmette.agents.harness import HarnessFactory
from palmette.agents.programs.actor import ProgramActor, machine_name
from palmette.agents.programs.agent_actor import STOP_SECONDS, AgentActor
from palmette.agents.programs.agent_handle import Agent
from palmette.agents.programs.supervisor import ProgramSupervisor
from palmette.machines import Machine, MachineActor, RemoteMachine, machine_for
from palmette.machines.pool import BACKOFF, HOPELESS
from palmette.machines.pool import STOP_SECONDS as MACHINE_STOP_SECONDS
from palmette.supervisors import Backoff, ChildSpec, child
from palmette.supervisors.policy import Directive, Restart

_UNFIT: Final = re.compile(r"[^A-Za-z0-9_/-]")
START_SECONDS: Final = 120.0
"""For an agent, or a machine, to come up."""


class AgentOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is to be; see :func:`~palmette.agents.programs.agent`."""

    system_prompt: str | None
    model: str
    harness: HarnessFactory | str | None
    image: str | None
    machine: Machine | None
    tool_seconds: float
    restart: Restart
    backoff: Backoff
    rules: Mapping[str, Directive]
    seconds: float


async def start_agent(host: ProgramActor, name: str, order: AgentOrder) -> Agent:
    """Start an agent below ``host``; for the errors see :func:`~palmette.agents.programs.agent`."""
    if name in host.agents:
        raise ValueError(f"agent {name!r} already exists in {host.path}; names are unique in a program")
    host.free_name(name, exact=True)
    own_image = order.image or (host.image if order.machine is None else None)
    machine, machine_spec = order.machine, None
    if own_image is not None:
        machine, machine_spec = machine_of(host, own_image, machine_name(name))
    agent = Agent(
        name,
        host,
        log=host.surroundings.log,
        recorder=host.surroundings.recorder,
        system_prompt=order.system_prompt,
        model=order.model,
        machine=machine,
        tool_seconds=order.tool_seconds,
    )
    host.agents[name] = host.record.agents[name] = agent
    host.promise(name, agent)
    try:
        async with within(order.seconds, f"agent {agent.path}"):
            if machine_spec is not None:
                await host.dismissed(machine_spec.name)  # of an earlier agent of this name, which may still be ending
                await _bring_up(host, machine_spec)
            await agent.talk.load()
            spec = child(
                AgentActor,
                agent,
                _session(host.owner, agent.path),
                await _harness(host, order),
                name=name,
                restart=order.restart,
                backoff=order.backoff,
                rules=order.rules,
                shutdown=STOP_SECONDS,
            )
            await host.ref.call(ProgramSupervisor.admit, spec, agent)
            await agent.until_up()
    except BaseException:
        agent.is_unwanted = True
        await _undo(host, name)
        host.withdraw(name, agent)
        agent.ended(Shutdown("it could not be started"))
        raise
    return agent


async def _harness(host: ProgramActor, order: AgentOrder) -> HarnessFactory:
    wanted = order.harness or host.surroundings.harness or "react"
    if isinstance(wanted, str):
        return await host.surroundings.providers.harness(host.system, wanted, model=order.model)
    return wanted


async def start_machine(host: ProgramActor, image: str | None, *, seconds: float) -> Machine:
    """Start a machine below ``host``; for the errors see :func:`~palmette.agents.programs.machine`."""
    wanted = image or host.image
    if wanted is None:
        raise ValueError(f"which image? {host.path} has none of its own; pass one to machine(), or to @program")
    found, spec = machine_of(host, wanted, host.free_name("machine"))
    try:
        async with within(seconds, f"a machine of image {wanted!r}"):
            await _bring_up(host, spec)
    except BaseException:
        await _undo(host, spec.name)
        raise
    return found


def machine_of(host: ProgramActor, image: str, name: str) -> tuple[Machine, ChildSpec[Actor]]:
    """A machine of ``host``, and the spec that starts it. Raises UnknownImage."""
    machine_for(image, owner=host.owner)  # for its errors alone: it starts nothing
    spec = child(
        MachineActor,
        image,
        host.owner,
        name=name,
        backoff=BACKOFF,
        rules=dict.fromkeys(HOPELESS, "stop"),
        shutdown=MACHINE_STOP_SECONDS,
    )
    ref = host.system.ref_at(f"{host.path}/{name}", MachineActor)
    return RemoteMachine(ref), cast("ChildSpec[Actor]", spec)


async def _bring_up(host: ProgramActor, spec: ChildSpec[Actor]) -> None:
    await host.ref.call(ProgramSupervisor.admit, spec, None)
    # The machine comes up beside its start; its first answer is the sign of it.
    await host.system.ref_at(f"{host.path}/{spec.name}", MachineActor).call(MachineActor.id)


async def _undo(host: ProgramActor, name: str) -> None:
    """End what could not start. Where this is cancelled, or the program ends, the program's own end does it."""
    if host.is_over:
        return
    done = asyncio.gather(
        *(host.ref.call(ProgramSupervisor.dismiss, each) for each in (name, machine_name(name))),
        return_exceptions=True,
    )
    await settle([done])


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncGenerator[None]:
    """Bound a start, and all calls in it. Raises DeadlineExceeded."""
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            with deadline(seconds):
                yield
    except TimeoutError as error:
        if not clock.expired() and not isinstance(error, DeadlineExceeded):
            raise
        raise DeadlineExceeded(f"{what} was not up within {seconds:g} s") from None


def _session(owner: str, path: str) -> str:
    """A name for the agent's session, unique on this host and fit for files and addresses."""
    return owner + _UNFIT.sub(lambda found: f"_{ord(found[0]):x}", path.replace("_", "__")).replace("/", ".")
