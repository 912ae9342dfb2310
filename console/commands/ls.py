"""``palmette ls``: what runs on this host."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from palmette.console.options import JsonOption


def ls(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only those whose ids begin so.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the agent programs and runs of this user that run on this host right now.

    Ends with 0 also where there are none. Sockets that nobody serves any more are swept.
    """
    import msgspec

    from palmette.actors.runtime_dir import living_sockets
    from palmette.console.control_client import glance
    from palmette.console.failures import Failed, NotRunning

    found: list[dict[str, Any]] = []
    for id, path in living_sockets():
        if name is not None and not id.startswith(name):
            continue
        pid = int(path.name.removeprefix(f"{id}.").partition(".")[0])
        row: dict[str, Any] = {"id": id, "kind": "run", "pid": pid}
        try:
            told: dict[str, Any] = glance(path)
        except NotRunning:
            continue  # it ended meanwhile
        except Failed as error:
            row["error"] = str(error)
        else:
            row["kind"] = told.get("kind", "run")
            status: dict[str, Any] = told.get("status") or {}
            if row["kind"] == "program":
                row |= {key: status[key] for key in ("program", "since")}
                row |= {"programs": len(status["programs"]), "agents": len(status["agents"])}
        found.append(row)
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    for row in found:
        print(_line(row))


def _line(row: dict[str, Any]) -> str:
    what = f"{row['id']}  {row['kind']}  pid {row['pid']}"
    if "error" in row:
        return f"{what}  does not answer"
    if row["kind"] == "program":
        minutes, seconds = divmod(int(time.time() - row["since"]), 60)
        return f"{what}  {row['programs']} programs  {row['agents']} agents  {minutes}:{seconds:02d}"
    return what
