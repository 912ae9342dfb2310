"""``palmette why``: the exits of an actor, from the run that is being played or from the journal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from palmette.console.options import JournalOption, JsonOption

if TYPE_CHECKING:
    from palmette.actors.control_socket import Ended, Why


def why(
    path: Annotated[str, typer.Argument(help="An address such as /pool, or a registered name.", show_default=False)],
    run: Annotated[str | None, typer.Option(metavar="RUN", help="The run's id, if not the only one.")] = None,
    journal: JournalOption = None,
    json: JsonOption = False,
) -> None:
    """Say why an actor (or anything below it) ended, each time.

    Of a run that is being played the kernel answers, tracebacks included; of another one (`--run`) the journal does.
    """
    import msgspec

    found = _asked(path, run, journal)
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    show(found)


def _asked(path: str, run: str | None, journal: str | None) -> Why:
    from palmette.console.control import WhyVerb
    from palmette.console.control_client import ask, running

    if run is None or any(name.startswith(run) for name in running()):
        reply = ask(WhyVerb(path=path), run)
        assert reply.why is not None
        return reply.why
    return _recorded(path, run, journal)


def _recorded(path: str, run: str, journal: str | None) -> Why:
    from palmette.actors.control_socket import Ended, Why
    from palmette.benchmarks.journal import JournalStore
    from palmette.console.options import journal_url

    with JournalStore(journal_url(journal), create=False) as store:
        events = store.events(store.get_run(run).id)
    exits: list[Ended] = []
    for event in events:
        address = f"{event.supervisor.rstrip('/')}/{event.child}"
        if event.kind == "exit" and (address == path or address.startswith(f"{path.rstrip('/')}/")):
            exits.append(Ended(at=event.at, path=address, reason=event.reason))
    return Why(path=path, state="absent", exits=tuple(exits))


def show(found: Why) -> None:
    from palmette.console.plain import one_line, printable

    for ended in found.exits:
        _print_one(ended)
    for block in found.blocked:
        print(one_line(block, 400))
    crashed = [ended for ended in found.exits if ended.traceback]
    if crashed:
        print(f"\nthe last traceback, of {crashed[-1].path}:\n{printable(crashed[-1].traceback).rstrip()}")
    if not found.exits:
        known = "it never ended" if found.state != "absent" else "nothing of that address is known to have ended"
        print(f"{found.path} is {found.state}; {known}")
    elif found.state != "absent":
        print(f"\n{found.path} is {found.state} now")


def _print_one(ended: Ended) -> None:
    from palmette.console.plain import one_line

    clock = time.strftime("%H:%M:%S", time.localtime(ended.at))
    name = ended.path if ended.incarnation is None else f"{ended.path}#{ended.incarnation} ({ended.kind})"
    print(f"{clock}  {one_line(name, 200)}  {one_line(ended.reason, 400)}")
