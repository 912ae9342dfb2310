"""``palmette runs``: what is in the journal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from palmette.console.options import JournalOption, JsonOption

if TYPE_CHECKING:
    from palmette.benchmarks.journal import JournalStore, Run

_STYLES = {"completed": "green", "interrupted": "yellow", "running": "cyan", "failed": "red"}


def runs(journal: JournalOption = None, json: JsonOption = False) -> None:
    """List the runs in the journal, the newest first."""
    import msgspec

    from palmette.benchmarks.journal import JournalStore
    from palmette.console.options import journal_shown, journal_url

    url = journal_url(journal)
    with JournalStore(url, create=False) as store:
        listed = [_line(store, run) for run in store.list_runs()]
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n")
        return
    _print(listed, journal_shown(url))


def _line(store: JournalStore, run: Run) -> dict[str, object]:
    from palmette.console.summary import state_of

    tally = store.tally(run.id)
    agent = "GRPO" if run.config.get("kind") == "train" else run.config.get("agent")
    return {
        "run": run.id,
        "created": run.created,
        "benchmark": run.benchmark,
        "agent": agent,
        "model": run.config.get("model"),
        "state": state_of(store, run),
        "ended": tally.requested,
        "planned": run.config.get("planned"),
        "mean_reward": tally.mean_reward,
    }


def _print(listed: list[dict[str, object]], journal: str) -> None:
    import time

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from palmette.console.plain import one_line

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for name in ("run", "started", "benchmark", "agent", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("episodes", justify="right", no_wrap=True)
    table.add_column("reward", justify="right", no_wrap=True)
    for line in listed:
        created, mean, planned = line["created"], line["mean_reward"], line["planned"]
        assert isinstance(created, float)
        state = str(line["state"])
        agent = f"{line['agent']}{f' {model}' if (model := line['model']) else ''}"
        table.add_row(
            Text(str(line["run"]), style="bold"),
            time.strftime("%b %d %H:%M", time.localtime(created)),
            str(line["benchmark"]),
            one_line(agent, 26),
            Text(state, style=_STYLES.get(state, "")),
            f"{line['ended']:,}" + (f" of {planned:,}" if isinstance(planned, int) else ""),
            f"{mean:.4f}" if isinstance(mean, float) else "",
        )
    console = Console(highlight=False)
    if listed:
        console.print(table)
    console.print(Text(f"journal  {journal}" if listed else f"no run yet in {journal}", style="bright_black"))
