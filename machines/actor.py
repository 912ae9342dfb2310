"""A machine as an actor: its death is an ordinary supervision event.

:class:`MachineActor` owns one backend machine. What a command does wrong (a missing file, a bad exit code) goes back to
the caller; what the *machine* does wrong (:class:`MachineLost`) crashes the actor, so that its supervisor replaces it
and everybody who waited learns of it at once. :class:`RemoteMachine` is what tools and evaluators hold: the machine
contract, spoken through a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TypeVar, cast

from palmette.actors import Actor, Reason, Ref, deadline, endpoint
from palmette.machines.contract import ExecResult, Limits, Machine, StreamName
from palmette.machines.errors import MachineError, MachineLost
from palmette.machines.images import machine_for

T = TypeVar("T")

OnOutput = Callable[[StreamName, bytes], None]
MARGIN = 10.0
"""Seconds that a call may take beyond its command's own timeout: for the kill and the last of the output."""


class MachineActor(Actor):
    """One machine of ``image``, belonging to run ``owner``."""

    def __init__(self, image: str, owner: str) -> None:
        self._machine: Machine = machine_for(image, owner=owner)
        self._dirty = False

    async def continued(self) -> None:
        self.start_task(self._clean_up())
        # Not in started(): a machine that takes seconds to come up must not keep its supervisor, and all others that
        # wait to be started, from their work. Calls wait in the mailbox meanwhile.
        await self._machine.start()

    async def stopping(self, reason: Reason) -> None:
        await self._machine.stop()

    async def _clean_up(self) -> None:
        # An actor that is killed does not get to stopping(), but its tasks are cancelled whatever ends it.
        try:
            await self.system.loop.create_future()
        finally:
            await self._machine.stop()

    @endpoint
    async def id(self) -> str:
        """The machine's id, which labels everything that it creates."""
        return self._machine.id

    @endpoint
    async def prepare(self, files: dict[str, bytes]) -> None:
        """An empty working directory with ``files`` in it, whatever was there before."""
        return self._ordinary(self._prepared(files))

    @endpoint
    async def exec(
        self,
        command: str | list[str],
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: dict[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run a command; several may run at once. ``on_output`` only within this process."""
        self._dirty = True
        return self._ordinary(
            self._machine.exec(
                command,
                stdin=stdin,
                timeout=timeout,
                env=env,
                cwd=cwd,
                limits=limits,
                max_output=max_output,
                on_output=on_output,
            )
        )

    @endpoint
    async def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file."""
        self._dirty = True
        return self._ordinary(self._machine.put(path, data, mode=mode))

    @endpoint
    async def get(self, path: str, max_bytes: int = 64 << 20) -> bytes:
        """Read a file."""
        return self._ordinary(self._machine.get(path, max_bytes=max_bytes))

    @endpoint
    async def list(self, path: str = ".") -> list[str]:
        """Names in a directory."""
        return self._ordinary(self._machine.list(path))

    @endpoint
    async def reset(self) -> None:
        """An empty working directory; what runs is killed."""
        await self._machine.reset()
        self._dirty = False

    async def _prepared(self, files: Mapping[str, bytes]) -> None:
        if self._dirty:
            await self._machine.reset()
        self._dirty = True
        for path, data in files.items():
            await self._machine.put(path, data)

    def _ordinary(self, work: Coroutine[object, object, T]) -> T:
        """Answer the present call with ``work``'s result or its ordinary failure, beside the mailbox.

        A lost machine is no ordinary failure: it crashes the actor, and its callers learn of that.
        """
        token = self.reply_later()

        async def run() -> None:
            try:
                token.reply(await work)
            except MachineLost:
                raise
            except (MachineError, OSError, ValueError) as error:
                token.fail(error)

        self.start_task(run())
        return cast("T", None)  # the kernel ignores what an endpoint returns once its reply is owed


class RemoteMachine:
    """The contract :class:`~palmette.machines.contract.Machine`, through a reference to a :class:`MachineActor`.

    Raises, in all methods, ``ActorDied`` where a machine held directly raises ``MachineLost``.
    """

    def __init__(self, ref: Ref[MachineActor]) -> None:
        self._ref = ref

    @property
    def id(self) -> str:
        return self._ref.path

    async def start(self) -> None:
        """Its supervisor has started it."""

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        limits: Limits | None = None,
        max_output: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        with deadline(timeout + MARGIN):
            return await self._ref.call(
                MachineActor.exec,
                command if isinstance(command, str) else list(command),
                stdin=stdin,
                timeout=timeout,
                env=None if env is None else dict(env),
                cwd=cwd,
                limits=limits,
                max_output=max_output,
                on_output=on_output,
            )

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        await self._ref.call(MachineActor.put, path, data, mode)

    async def get(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        return await self._ref.call(MachineActor.get, path, max_bytes)

    async def list(self, path: str = ".") -> list[str]:
        return await self._ref.call(MachineActor.list, path)

    async def prepare(self, files: dict[str, bytes]) -> None:
        """An empty working directory with ``files`` in it."""
        await self._ref.call(MachineActor.prepare, files)

    async def reset(self) -> None:
        await self._ref.call(MachineActor.reset)

    async def stop(self) -> None:
        """Its supervisor stops it."""
