"""Who places the children of a system: the seam between process nodes and the books.

Without a cluster it is this host alone, with books of the system's own (:class:`OwnBooks`). In a process node it is
what that process was itself given: what its children ask for is a part of it, so that no depth of tree gives anything
out twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from palmette.actors.cluster.books import Placed
from palmette.actors.cluster.capabilities import Capabilities, Gpu, discover
from palmette.actors.cluster.needs import Needs
from palmette.actors.cluster.placement import Accounts, Unsatisfiable
from palmette.actors.errors import NodeError

logger: Final = logging.getLogger("palmette.placement")


class NoPlace(NodeError):
    """What a child needs was in use for as long as it would wait."""

    retryable = True


class Placer(Protocol):
    """See the module's text."""

    async def place(self, path: str, needs: Needs) -> Placed:
        """Reserve what the child at ``path`` needs, waiting up to ``needs.wait`` seconds for it.

        Raises:
            Unsatisfiable: it exists nowhere.
            NoPlace: it was in use all the time.
            NodeError: nobody can say.
        """
        ...

    def release(self, lease: str) -> None:
        """The child's process is gone, or never came. One that is released already stays so."""
        ...


Hosts = Mapping[str, Capabilities]


class OwnBooks:
    """A placer with books of its own, over hosts that do not change. ``find_hosts`` is called at the first use.

    ``find_hosts`` runs in a thread, and may raise ValueError.
    """

    def __init__(self, find_hosts: Callable[[], Hosts]) -> None:
        self._find_hosts = find_hosts
        self._opening = asyncio.Lock()
        self._accounts: Accounts | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Placed]] = {}

    async def place(self, path: str, needs: Needs) -> Placed:
        accounts = await self._open()
        lease = f"{path}#{next(self._numbers)}"
        answer = accounts.place(lease, needs)
        if isinstance(answer, Placed):
            return answer
        logger.warning("%s waits up to %g s for a place: %s", path, needs.wait, answer.reason)
        granted = self._waiting[lease] = asyncio.get_running_loop().create_future()
        granted.add_done_callback(lambda future: future.cancelled() or future.exception())  # a starter may be gone
        try:
            await asyncio.wait([granted], timeout=needs.wait)
            if not granted.done():
                raise NoPlace(f"it waited {needs.wait:g} s for a place: {accounts.why_waiting(lease)}")
            return granted.result()
        except BaseException:
            self.release(lease)
            raise
        finally:
            del self._waiting[lease]

    def release(self, lease: str) -> None:
        assert self._accounts is not None, "there was a lease to release, so there are books"
        self._accounts.release(lease)
        for served in self._accounts.grant():
            if isinstance(served, Placed):
                self._waiting[served.lease].set_result(served)
            else:
                self._waiting[served[0]].set_exception(served[1])

    async def _open(self) -> Accounts:
        async with self._opening:
            if self._accounts is None:
                try:
                    hosts = await asyncio.to_thread(self._find_hosts)
                except ValueError as error:
                    raise NodeError(str(error)) from None
                self._accounts = Accounts()
                for name, capabilities in hosts.items():
                    self._accounts.add(name, 1, capabilities)
            return self._accounts


class Nothing:
    """The placer of a process that was itself placed without a word of what it needs."""

    async def place(self, path: str, needs: Needs) -> Placed:
        raise Unsatisfiable(
            f"{path} needs {needs}, and the process that it would be started from has nothing to give: the process "
            "child above it has no on=; say there what all that is below it needs"
        )

    def release(self, lease: str) -> None:
        """There is none."""


def this_host(capabilities: Mapping[str, str]) -> Placer:
    """Books of this host alone, of which ``capabilities`` says what cannot be found."""
    return OwnBooks(lambda: {socket.gethostname(): discover(capabilities)})


def part_of(needs: Needs | None, placed: Placed | None) -> Placer:
    """Books of what was given to this process."""
    if needs is None or placed is None:
        return Nothing()
    given = Capabilities(
        cpus=needs.cpus,
        memory=needs.memory,
        gpus=tuple(Gpu(index, memory=needs.gpu_memory) for index in placed.gpus),
        docker=needs.docker,
        ssh=needs.ssh,
        labels=needs.labels,
        resources=needs.resources,
    )
    return OwnBooks(lambda: {placed.node: given})
