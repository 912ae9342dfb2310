"""What the kernel answers about an actor in another process: calls by names that no endpoint can have.

They pass the wire like any call and reach the kernel over there, not the actor: a full mailbox, a busy handler or a
drain does not keep them waiting.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, cast

from palmette.actors.actor import Actor
from palmette.actors.cell import Cell
from palmette.actors.eager import Done, first_step
from palmette.actors.endpoints import Endpoint
from palmette.actors.messages import Request
from palmette.actors.state import ActorState, state_of


async def _state(cell: Cell) -> ActorState:
    return state_of(cell)


async def _drain(cell: Cell, seconds: float) -> None:
    cell.drain(seconds)


STATE: Final = cast("Endpoint[Actor, [], ActorState]", Endpoint(_state))
DRAIN: Final = cast("Endpoint[Actor, [float], None]", Endpoint(_drain))
VERBS: Final = {
    "system:state": cast("Endpoint[object, ..., object]", STATE),
    "system:drain": cast("Endpoint[object, ..., object]", DRAIN),
}
for _name, _verb in VERBS.items():
    _verb.name = _name


def answer(subject: Cell | Actor, request: Request) -> None:
    """Answer a verb, or an endpoint of the kernel's own actors, at once. Raises Refused, or ActorDied."""
    step = first_step(cast("Coroutine[object, object, object]", request.endpoint.function(subject, **request.kwargs)))
    assert isinstance(step, Done), "what is answered at once waits for nothing"
    if request.reply is not None and not request.reply.done():
        request.reply.set_result(step.value)
