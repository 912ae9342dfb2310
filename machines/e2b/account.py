"""An account at E2B: calls of its control plane that belong to no one machine, and what they have in common."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, TypeVar

import msgspec

from palmette.machines.e2b.errors import KEY_REMEDY, e2b_boundary
from palmette.machines.errors import MachineError
from palmette.machines.identity import MachineId

if TYPE_CHECKING:
    from e2b.sandbox.sandbox_api import SandboxInfo

T = TypeVar("T")

CALL_DEADLINE = 10.0
"""Seconds for one call, the SDK's own further tries at 429, 502, 503 and 504 included."""
MACHINE = "palmette-machine"
OWNER = "palmette-owner"
LEASE = "palmette-lease"
"""The labels of a sandbox (E2B calls them metadata): the machine's id, its run, the seconds of its lease."""


class Parameters(TypedDict):
    """What every call of the SDK takes."""

    api_key: str
    domain: str | None
    api_url: str | None
    sandbox_url: str | None
    debug: bool


@dataclass(frozen=True)
class E2bAccount:
    """Where sandboxes are made, and for whom. ``None`` is what the SDK's environment variables say."""

    api_key: str | None = field(default=None, repr=False)
    """``E2B_API_KEY``."""
    domain: str | None = None
    """``E2B_DOMAIN``."""
    api_url: str | None = None
    """``E2B_API_URL``: of the control plane, where that does not follow from the domain."""
    sandbox_url: str | None = None
    """``E2B_SANDBOX_URL``: of the proxy before the sandboxes, likewise."""

    def parameters(self) -> Parameters:
        """The key is read here, and kept nowhere else but in the SDK.

        Raises:
            MachineError: there is no key.
        """
        key = self.api_key or os.environ.get("E2B_API_KEY")
        if not key:
            raise MachineError(f"there is no key for E2B: {KEY_REMEDY}")
        return Parameters(
            api_key=key,
            domain=self.domain,
            api_url=self.api_url,
            sandbox_url=self.sandbox_url,
            debug=False,  # E2B_DEBUG would have the SDK pretend to create and to kill
        )

    async def sandboxes(self, labels: dict[str, str]) -> list[SandboxInfo]:
        """Those that run or are paused and carry these labels, paginated by E2B.

        Raises:
            MachineError
        """
        from e2b import AsyncSandbox, SandboxQuery

        pages = AsyncSandbox.list(query=SandboxQuery(metadata=labels), **self.parameters())
        found: list[SandboxInfo] = []
        while pages.has_next:
            found += await call("list the sandboxes", pages.next_items(request_timeout=CALL_DEADLINE))
        return found

    async def kill(self, sandbox: str) -> bool:
        """Whether there was one to kill. Raises MachineError."""
        from e2b import AsyncSandbox

        return await call(
            f"kill the sandbox {sandbox}",
            AsyncSandbox.kill(sandbox, request_timeout=CALL_DEADLINE, **self.parameters()),
        )


async def call(
    doing: str,
    work: Coroutine[object, object, T],
    *,
    deadline: float = CALL_DEADLINE,
    template: str | None = None,
    overdue: Callable[[], bool] = lambda: False,
) -> T:
    """One call of the SDK, with a deadline, its exceptions sorted (:mod:`palmette.machines.e2b.errors`)."""
    with e2b_boundary(doing, template=template, overdue=overdue):
        async with asyncio.timeout(deadline):
            return await work
    raise AssertionError("the boundary lets nothing end here")


async def import_sdk() -> None:
    """Import it in a thread: it takes 0.4 s.

    Raises:
        MachineError: it is not installed.
    """
    try:
        await asyncio.to_thread(importlib.import_module, "e2b")
    except ModuleNotFoundError as error:
        raise MachineError("the e2b SDK is not installed: pip install 'palmette[e2b]'") from error


class E2bReapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass of :func:`reap` found."""

    machines: tuple[str, ...] = ()
    """Whose sandboxes were killed, as their controllers are dead."""
    alive: int = 0
    """Sandboxes left alone as their controller lives."""
    elsewhere: tuple[str, ...] = ()
    """Machines of other hosts, left alone: their sandboxes end with their lease."""
    failed: tuple[str, ...] = ()
    """What could not be killed, and why. Empty when all went well."""


async def reap(*, owner: str | None = None, account: E2bAccount | None = None) -> E2bReapReport:
    """Kill the sandboxes whose controller, on this host, is dead. Without it they live as long as their lease.

    Args:
        owner: only those of this run.
        account: whose sandboxes; default: the environment's.

    Raises:
        MachineError: E2B cannot be asked.
    """
    await import_sdk()
    account = account or E2bAccount()
    dead: list[tuple[str, str]] = []
    elsewhere: list[str] = []
    alive = 0
    for one in await account.sandboxes({} if owner is None else {OWNER: owner}):
        machine = MachineId.parse(one.metadata.get(MACHINE, ""))
        if machine is None:
            continue
        match machine.controller():
            case "dead":
                dead.append((str(machine), one.sandbox_id))
            case "elsewhere":
                elsewhere.append(str(machine))
            case "alive":
                alive += 1
    killed: list[str] = []
    failed: list[str] = []
    for machine_id, sandbox in dead:
        try:
            await account.kill(sandbox)
        except MachineError as error:
            failed.append(str(error))
        else:
            killed.append(machine_id)
    return E2bReapReport(machines=tuple(killed), alive=alive, elsewhere=tuple(elsewhere), failed=tuple(failed))


async def delete_snapshot(image: str, *, account: E2bAccount | None = None) -> bool:
    """Have E2B forget a snapshot; whether there was one.

    Args:
        image: as :attr:`Snapshot.image <palmette.machines.contract.Snapshot>` has it.

    Raises:
        MachineError
    """
    await import_sdk()
    from e2b import AsyncSandbox

    parameters = (account or E2bAccount()).parameters()
    return await call(
        f"delete the snapshot {image!r}",
        AsyncSandbox.delete_snapshot(image.removeprefix("e2b:"), request_timeout=CALL_DEADLINE, **parameters),
    )
