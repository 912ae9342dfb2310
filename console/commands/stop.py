"""``palmette stop``: Ctrl-C from elsewhere."""

from __future__ import annotations

from palmette.console.options import AnyRunArgument


def stop(run: AnyRunArgument = None) -> None:
    """Stop a run or an agent program that runs right now, in order. A run can be resumed."""
    from palmette.console.control import StopVerb
    from palmette.console.control_client import ask

    reply = ask(StopVerb(), run)
    if reply.kind in ("program", "system"):
        print(f"{reply.run} is stopping")
    else:
        print(f"run {reply.run} is stopping; `palmette resume {reply.run}` goes on")
