"""Tasks: functions that run beside their caller, each in an actor of its own, and whose failure is data.

Elixir's ``Task.Supervisor``. A task is for work that one caller waits for and that may fail by itself: a tool call, a
judge, one of many requests. Its crash is an exit reason for its owner, and not a crash of the owner; it stands in the
tree while it runs, can be killed there, and ``why`` knows how it ended.

>>> import asyncio
>>> from palmette.actors import System
>>> from palmette.supervisors import Exited, Ok, Supervisor, TaskSupervisor
>>> async def divide(by: int) -> float:
...     return 84 / by
>>> async def main() -> None:
...     async with System.start(Supervisor.spec(children=[TaskSupervisor.spec(name="tasks")])) as system:
...         tasks = system.whereis("tasks", TaskSupervisor)
...         task = await TaskSupervisor.async_nolink(tasks, divide, 2)
...         print(await task.result())
...         async for answer in TaskSupervisor.async_stream(tasks, divide, [1, 0, 4], max_concurrency=2):
...             match answer:
...                 case Ok(value):
...                     print(value)
...                 case Exited(reason, item):
...                     print("by", item, "failed:", reason.text)
>>> asyncio.run(main())
42.0
84.0
by 0 failed: division by zero
21.0

**Who owns a task** is decided where it is asked for: the actor whose code asks or, outside of actors, the present
asyncio task. When the owner ends, for whatever reason, its tasks are told to stop. (In Elixir a task that is not linked
survives its owner. Here nothing that somebody started outlives them; for work that must go on there is
:meth:`TaskSupervisor.start_child`, which has no owner but the supervisor.)

A task runs in the process of its owner: functions do not cross to other processes, and neither do their handles.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Final, TypeVar, TypeVarTuple, Unpack, cast

import msgspec

from palmette.actors.actor import Actor
from palmette.actors.cell import Cell
from palmette.actors.endpoints import endpoint
from palmette.actors.errors import NodeError
from palmette.actors.exits import Reason, Shutdown
from palmette.actors.ref import Ref
from palmette.actors.slot import CURRENT
from palmette.supervisors.children import Child
from palmette.supervisors.dynamic import DynamicRestarter, dynamic_spec
from palmette.supervisors.policy import Backoff, Restart
from palmette.supervisors.spec import ChildSpec
from palmette.supervisors.spec import Shutdown as ShutdownTime
from palmette.supervisors.stream import OnTimeout, Settings, stream
from palmette.supervisors.task import TASK_SHUTDOWN, Exited, Ok, Task, TaskProcess, name_of

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Owner = Cell | asyncio.Task[object]

_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.]+")


class OwnerGone(msgspec.Struct, frozen=True):
    """A supervisor's message to itself: this owner has ended."""

    owner: Owner


class _Owned:
    """The living tasks of one owner."""

    __slots__ = ("forget", "members")

    def __init__(self, forget: Callable[[], object]) -> None:
        self.members: dict[str, Child] = {}
        self.forget = forget
        """Calls off the news of the owner's end."""


class TaskSupervisor(DynamicRestarter):
    """See the module's text. Describe one with :meth:`spec`; the other functions take a reference to it."""

    def __init__(self, *, max_children: int | None = None, max_restarts: int = 3, max_seconds: float = 5.0) -> None:
        super().__init__(max_children=max_children, max_restarts=max_restarts, max_seconds=max_seconds)
        self._begun = 0
        self._owners: dict[Owner, _Owned] = {}
        self._owner_of: dict[str, Owner] = {}

    @staticmethod
    def spec(
        *,
        name: str,
        max_children: int | None = None,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        restart: Restart = "permanent",
        shutdown: ShutdownTime = "infinity",
        backoff: Backoff | None = None,
        register: str | None = None,
    ) -> ChildSpec[TaskSupervisor]:
        """Describe a task supervisor; its budget is for tasks of :meth:`start_child` that are restarted.

        Raises:
            BadSpec: before anything starts.
        """
        return dynamic_spec(
            TaskSupervisor,
            {"max_children": max_children, "max_restarts": max_restarts, "max_seconds": max_seconds},
            name=name,
            restart=restart,
            shutdown=shutdown,
            backoff=backoff,
            register=register,
        )

    # --- what one does with it -------------------------------------------------------------------------------------

    @staticmethod
    def async_nolink(
        tasks: Ref[TaskSupervisor],
        function: Callable[[Unpack[Ts]], Awaitable[R]],
        *args: *Ts,
        shutdown: ShutdownTime = TASK_SHUTDOWN,
    ) -> Coroutine[object, object, Task[R]]:
        """``await`` it to start ``function(*args)`` as a task of the present owner, and get its handle.

        Raises:
            BadSpec: ``shutdown`` makes no sense.
            TooManyChildren: the supervisor has its ``max_children``.
            ActorDied: the supervisor is not there.
            NodeError: it lives in another process.
        """
        return start_task(tasks, function, args, shutdown, owner_here())

    @staticmethod
    async def start_child(
        tasks: Ref[TaskSupervisor],
        function: Callable[[Unpack[Ts]], Awaitable[object]],
        *args: *Ts,
        restart: Restart = "temporary",
        shutdown: ShutdownTime = TASK_SHUTDOWN,
    ) -> str:
        """Start ``function(*args)`` for its effects; the path of its actor. Nobody owns it, nobody gets its result.

        A ``transient`` one is started again when it crashes. Raises as :meth:`async_nolink`.
        """
        _check_here(tasks)
        return await tasks.call(TaskSupervisor.begin, _spec_of(function, args, None, restart, shutdown))

    @staticmethod
    def async_stream(
        tasks: Ref[TaskSupervisor],
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        max_concurrency: int,
        ordered: bool = True,
        timeout: float = 60.0,
        on_timeout: OnTimeout = "exit",
        shutdown: ShutdownTime = TASK_SHUTDOWN,
    ) -> AsyncGenerator[Ok[R] | Exited]:
        """Run ``function(item)`` for each of ``items``, and iterate over the results; see :mod:`.stream`.

        ``ordered`` gives them in the order of the items, otherwise as they come. ``timeout`` is the seconds that one
        task may take: past it the iteration raises ``DeadlineExceeded`` (``on_timeout="exit"``), or the task is killed
        and its result is an ``Exited`` (``"kill_task"``).

        Raises:
            ValueError: an option makes no sense.
        """
        settings = Settings(
            max_concurrency=max_concurrency, ordered=ordered, timeout=timeout, on_timeout=on_timeout, shutdown=shutdown
        )
        owner = owner_here()

        def begin(item: T) -> Coroutine[object, object, Task[R]]:
            return start_task(tasks, function, (item,), shutdown, owner)

        return stream(begin, items, settings)

    # --- the supervisor itself ---------------------------------------------------------------------------------------

    @endpoint
    async def begin(
        self,
        spec: ChildSpec[TaskProcess],
        task: Task[object] | None = None,
        owner: Owner | None = None,
    ) -> str:
        """Start a task, whose name gets a number; its path. Use :meth:`async_nolink` and the others for it."""
        self._begun += 1
        member = await self._admit(msgspec.structs.replace(spec, name=f"{spec.name}-{self._begun}"))
        if task is not None:
            cell = member.slot.target
            assert isinstance(cell, Cell)
            task.begun(cast("Ref[Actor]", self.system.ref(member.slot)), cell)
        if owner is not None:
            self._own(owner, member)
        return member.slot.path

    async def receive(self, message: object) -> None:
        if isinstance(message, OwnerGone):
            owned = self._owners.get(message.owner)
            if owned is not None:
                # Beside the mailbox: one task that takes its time to clean up must not keep all others waiting.
                self.start_task(self._stop(*owned.members.values()))
        else:
            await super().receive(message)

    async def stopping(self, reason: Reason) -> None:
        for owned in self._owners.values():
            owned.forget()
        await super().stopping(reason)

    def _own(self, owner: Owner, member: Child) -> None:
        owned = self._owners.get(owner)
        if owned is None:
            owned = self._owners[owner] = _Owned(self._watch(owner))
        owned.members[member.spec.name] = member
        self._owner_of[member.spec.name] = owner

    def _watch(self, owner: Owner) -> Callable[[], object]:
        """Have an :class:`OwnerGone` sent; returns what calls that off."""
        end: asyncio.Future[object] = (
            cast("asyncio.Future[object]", owner.ended()) if isinstance(owner, Cell) else owner
        )

        def gone(_: asyncio.Future[object]) -> None:
            if self._cell.state != "dead":
                self._cell.post(OwnerGone(owner))

        end.add_done_callback(gone)
        return lambda: end.remove_done_callback(gone)

    def _drop(self, member: Child) -> None:
        super()._drop(member)
        owner = self._owner_of.pop(member.spec.name, None)
        if owner is None:
            return
        owned = self._owners[owner]
        del owned.members[member.spec.name]
        if not owned.members:
            del self._owners[owner]
            owned.forget()


def owner_here() -> Owner | None:
    """Who owns what the present code starts."""
    cell = CURRENT.get()
    return cell if cell is not None else cast("asyncio.Task[object] | None", asyncio.current_task())


def _check_here(tasks: Ref[TaskSupervisor]) -> None:
    target = tasks._slot.target  # pyright: ignore[reportPrivateUsage]
    if target is not None and not isinstance(target, Cell):
        raise NodeError(
            f"{tasks.path} lives in another process, and functions do not cross; give each process a task supervisor "
            "of its own"
        )


def _spec_of(
    function: Callable[..., Awaitable[object]],
    args: tuple[object, ...],
    task: Task[object] | None,
    restart: Restart,
    shutdown: ShutdownTime,
) -> ChildSpec[TaskProcess]:
    # Made here and not by the supervisor: a bad option is the caller's error, and must not be the supervisor's end.
    return ChildSpec(
        actor=TaskProcess,
        args=(function, args, task),
        name=_NOT_IN_A_NAME.sub("", name_of(function)) or "task",
        restart=restart,
        shutdown=shutdown,
    )


async def start_task(
    tasks: Ref[TaskSupervisor],
    function: Callable[[Unpack[Ts]], Awaitable[R]],
    args: tuple[*Ts],
    shutdown: ShutdownTime,
    owner: Owner | None,
) -> Task[R]:
    """Start ``function(*args)`` as a task of ``owner``."""
    _check_here(tasks)
    task: Task[R] = Task(asyncio.get_running_loop())
    spec = _spec_of(function, args, task, "temporary", shutdown)
    try:
        await tasks.call(TaskSupervisor.begin, spec, task, owner)
    except BaseException:
        # Whoever asked has gone, or lost their patience; the order may still be carried out.
        task.ask_to_end(Shutdown("its start was called off"))
        raise
    return task
