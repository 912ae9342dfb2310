"""``palmette machines``: whether a backend keeps the contract, and what killed controllers have left."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from palmette.console.options import JsonOption

if TYPE_CHECKING:
    from palmette.machines.conformance import CheckResult, ConformanceReport
    from palmette.machines.leftovers import Reaped

app = typer.Typer(help="Look at the places where commands run.", no_args_is_help=True, rich_markup_mode="markdown")

_MARKS = {"kept": ("✓", "green"), "broken": ("✗", "bold red"), "not promised": ("–", "bright_black")}
_ONLY = typer.Option(metavar="NAME", help="Only these checks or groups; may be given again.", show_default=False)


@app.command()
def check(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="docker:python:3.12, local+bwrap, ssh://host, …")],
    only: Annotated[list[str] | None, _ONLY] = None,
    json: JsonOption = False,
) -> None:
    """Try out every promise of the machine contract on real machines of an image.

    Takes some twenty seconds. Ends with 0 if no promise is broken, and with 1 otherwise.

    Examples: `palmette machines check local` · `palmette machines check docker:python:3.12 --only files`
    """
    import msgspec

    from palmette.console.failures import UsageError
    from palmette.machines import conformance

    try:
        conformance.checks(only or ())
    except ValueError as error:
        raise UsageError(str(error)) from error
    printer = None if json else _Printer()
    report = asyncio.run(conformance.check(image, only=only or (), on_result=None if printer is None else printer.show))
    if printer is None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        printer.close(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def reap(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]…", help="Also of these: docker, e2b, ssh://host. `local` always.", show_default=False
        ),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only what belongs to this run.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove machines whose controller is dead: processes, directories, containers, sandboxes.

    What a living controller owns is left alone, and so is what belongs to another host.
    """
    import msgspec

    from palmette.machines.leftovers import reap_all

    reaped = asyncio.run(reap_all(images or (), owner=owner))
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(reaped), indent=2).decode() + "\n")
    else:
        _print(reaped)
    raise typer.Exit(1 if any(each.failed for each in reaped) else 0)


class _Printer:
    """A line per check, as they come."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._group = ""

    def show(self, result: CheckResult) -> None:
        from rich.text import Text

        from palmette.console.plain import one_line

        if result.group != self._group:
            self._group = result.group
            self._console.print(Text(f"\n{self._group}", style="bold"))
        mark, style = _MARKS[result.verdict]
        self._console.print(Text(f"  {mark} ", style=style) + Text(result.promise))
        if result.detail:
            self._console.print(Text(f"      {result.name}: {one_line(result.detail, 300)}", style=style))

    def close(self, report: ConformanceReport) -> None:
        from rich.text import Text

        broken, other = len(report.broken), len(report.not_promised)
        seconds = sum(result.seconds for result in report.results)
        self._console.print()
        if broken:
            self._console.print(
                Text(f"{report.image} breaks {broken} of {len(report.results)} promises", style="bold red")
            )
            return
        rest = f", {other} not promised" if other else ""
        self._console.print(
            Text(f"{report.image} keeps its promises: {report.kept} checks in {seconds:.0f} s{rest}", style="green")
        )


def _print(reaped: tuple[Reaped, ...]) -> None:
    for each in reaped:
        found = "nothing"
        if each.removed or each.processes:
            found = f"{len(each.removed)} machine(s), {each.processes} process(es)"
        kept = f"; {each.alive} in use" if each.alive else ""
        elsewhere = f"; {len(each.elsewhere)} of another host left alone" if each.elsewhere else ""
        print(f"{each.backend}: removed {found}{kept}{elsewhere}")
        for name in each.removed:
            print(f"  {name}")
        for problem in each.failed:
            print(f"  could not remove: {problem}")
