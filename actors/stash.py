"""The stash: what an actor cannot handle yet, put aside until it can.

>>> import asyncio
>>> from palmette.actors import Actor, System, endpoint
>>> from palmette.supervisors import Supervisor, child
>>> class Door(Actor):
...     is_open = False
...     @endpoint
...     async def enter(self, who: str) -> str:
...         if not self.is_open:
...             self.stash()                       # ends the handler; the caller goes on waiting
...         return f"welcome, {who}"
...     @endpoint
...     async def unlock(self) -> None:
...         self.is_open = True
...         self.unstash_all()
>>> async def main() -> None:
...     async with System.start(Supervisor.spec(children=[child(Door, name="door")])) as system:
...         door = system.whereis("door", Door)
...         visit = asyncio.create_task(door.call(Door.enter, "Ada"))
...         await asyncio.sleep(0)
...         await door.call(Door.unlock)
...         print(await visit)
>>> asyncio.run(main())
welcome, Ada

The idea and its rules are Akka's: the stash is bounded, what is taken back comes ahead of the mailbox and in its old
order, and all of it ends with the incarnation: calls fail at once, the rest goes to dead letters. A stashed call keeps
its deadline; one that is late is dropped. Unlike Akka's, ``stash()`` does not return: a handler that went on after
putting its message away would handle it twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from palmette.actors.errors import StashFull

if TYPE_CHECKING:
    from palmette.actors.cell import Cell


class PutAside(BaseException):
    """Ends a handler whose message goes to the stash. Not an Exception: users' ``except Exception`` lets it pass."""

    def __init__(self) -> None:
        super().__init__("stash() belongs inside an endpoint or receive(), in the actor's own task")


def stash(cell: Cell, capacity: int) -> NoReturn:
    """End the present handler of ``cell``, and put its message aside.

    Raises:
        StashFull: ``capacity`` messages are there.
        RuntimeError: it is not the handler that asks, but a task beside it.
    """
    if not cell.is_running_here():
        raise RuntimeError(str(PutAside()))
    if not cell.mailbox.has_stash_room(capacity):
        raise StashFull(
            f"the stash of {cell.slot.path} is full ({capacity}); unstash in time, or raise `stash_capacity`"
        )
    raise PutAside


def unstash_all(cell: Cell) -> None:
    """Put everything back in front of what waits, in its old order."""
    cell.mailbox.unstash_all()
    cell.look()
