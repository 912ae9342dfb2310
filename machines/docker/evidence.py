"""What became of a container: from its state while there is one, and from what the daemon remembers afterwards.

Our containers remove themselves when they end, so that a killed controller leaves nothing; then ``inspect`` knows
nothing either. The daemon's last events (it keeps 256) do, and tell more: a ``kill`` in front of the ``die`` was asked
for through the daemon, an ``oom`` in front of it was the kernel's doing, a ``die`` alone came from neither.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from palmette.machines.docker.keeper import EXPIRED
from palmette.machines.evidence import Evidence

if TYPE_CHECKING:
    from docker import APIClient

_OF_INTEREST = ("start", "oom", "kill", "die", "stop", "destroy")
_SAME_CAUSE = 5e9
"""Nanoseconds between a kill for memory and the end that it explains."""
_SETTLED = 0.5
"""Seconds in which the daemon learns of an end that the container's streams have shown already."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One of the daemon's events, as far as it matters here."""

    action: str
    time: int = 0
    """Nanoseconds."""
    exit_code: int | None = None
    signal: str | None = None


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """Of a container, as ``inspect`` gives it."""

    running: bool
    paused: bool
    exit_code: int
    oom_killed: bool = msgspec.field(name="OOMKilled")


def examine(client: APIClient, name: str, *, ended: bool, frozen: bool) -> Evidence | None:
    """How the container ``name`` is; ``None``: it runs. Blocks.

    Args:
        client: of the SDK.
        name: its name.
        ended: a stream of it has ended unasked; then "running" is believed only when it stays so.
        frozen: it is, by us.
    """
    from docker.errors import NotFound

    deadline = time.monotonic() + (_SETTLED if ended else 0.0)
    while True:
        try:
            state = msgspec.convert(client.inspect_container(name)["State"], State)
        except NotFound:
            state = None
        if state is None or not state.running:
            return cause_of(name, events_of(client, name), state)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if state.paused and not frozen:
        return Evidence(cause="unknown", detail=f"somebody paused the container; `docker unpause {name}`")
    return None


def cause_of(name: str, events: Sequence[Event], state: State | None = None) -> Evidence:
    """Why the container ``name``, which does not run, has ended."""
    # A restart of ours ends one life and begins another.
    starts = [number for number, event in enumerate(events) if event.action == "start"]
    events = events[starts[-1] :] if starts else events
    died = next((event for event in reversed(events) if event.action == "die"), None)
    code = died.exit_code if died is not None else state.exit_code if state is not None else None
    if code is None:
        gone = "does not exist any more" if state is None else "does not run"
        return Evidence(cause="machine_removed", detail=f"container {name} {gone}, and the daemon does not say why")
    if code == EXPIRED:
        return Evidence(cause="expired", detail=f"container {name} heard nothing of its controller for its whole lease")
    killed = [event.signal or "?" for event in events if event.action == "kill"]
    if killed:
        how = "`docker stop`" if any(event.action == "stop" for event in events) else "`docker kill` or `docker rm -f`"
        detail = f"somebody sent container {name} signal {killed[-1]} through the daemon, as {how} does"
        return Evidence(cause="machine_killed", detail=detail)
    memory = [event.time for event in events if event.action == "oom"]
    if (state is not None and state.oom_killed) or (
        died is not None and memory and died.time - memory[-1] < _SAME_CAUSE
    ):
        detail = f"the kernel killed container {name} at its memory limit, exit code {code}"
        return Evidence(cause="out_of_memory", detail=detail, agents_doing=True)
    detail = f"the first process of container {name} ended with exit code {code}, and not through the daemon"
    return Evidence(cause="machine_killed", detail=detail)


def events_of(client: APIClient, name: str) -> list[Event]:
    """What the daemon remembers of the container ``name``, oldest first. Blocks."""
    asked: dict[str, Any] = {
        # Without an end in the past the daemon would wait for more. The SDK's stubs know of whole seconds only.
        "since": "0",
        "until": f"{time.time():.6f}",
        "filters": {"container": name, "event": list(_OF_INTEREST)},
    }
    found: list[Event] = []
    for event in client.events(**asked, decode=True):
        attributes: dict[str, str] = event.get("Actor", {}).get("Attributes", {})
        code = attributes.get("exitCode")
        found.append(
            Event(
                action=event.get("Action", ""),
                time=event.get("timeNano", 0),
                exit_code=int(code) if code is not None else None,
                signal=attributes.get("signal"),
            )
        )
    return found
