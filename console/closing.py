"""The last screen of a run, for people and as JSON."""

from __future__ import annotations

import sys
from typing import cast

import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from palmette.benchmarks.outcomes import Tally
from palmette.console.curve import curve
from palmette.console.palette import counts
from palmette.console.plain import count, duration, one_line, path_tail
from palmette.console.summary import Summary

_STATES = {"completed": "green", "interrupted": "yellow", "running": "cyan", "failed": "red"}


def print_closing(summary: Summary, *, seconds: float | None, journal: str, hint: str) -> None:
    """The last screen, on standard output. ``hint`` goes behind the commands that it proposes."""
    console = Console(highlight=False)
    console.print(closing(summary, console.width, seconds=seconds, journal=journal, hint=hint))


def closing(
    summary: Summary, width: int, *, seconds: float | None = None, journal: str = "", hint: str = ""
) -> RenderableType:
    """The last screen: what came out, what was restarted, where it is kept, what to type next."""
    s = summary
    title = Text.assemble((f"{s.run.benchmark} · {_agent(s)}", "bold"), (f"  run {s.run.id}", "bright_black"), "  ")
    title.append(s.state, style=_STATES.get(s.state, ""))
    title.append(f" in {duration(s.seconds if seconds is None else seconds)}", style="bright_black")
    parts: list[RenderableType] = ["", title, ""]
    if s.kind == "train":
        parts += [_learned(s, width), ""]
    parts += [_equation(s), "", _outcomes(s), ""]
    if s.kind == "evaluate":
        parts += [_score(s), ""]
    elif s.rows is not None:
        parts += [_rows(s), ""]
    parts += [_restarts(s, width), "", Text(f"journal  {journal}", style="bright_black"), _next(s, hint), ""]
    return Padding(Group(*parts), (0, 1))


def _agent(s: Summary) -> str:
    if s.kind == "train":
        return "GRPO with injected crashes" if s.run.config.get("chaos") else "GRPO"
    model = s.run.config.get("model")
    return f"{s.run.config.get('agent', '')}{f' · {model}' if model else ''}"


def _equation(s: Summary) -> Text:
    line = Text.assemble((f"{s.requested:,}", "bold"), " requested =")
    terms = [(look.label, number, look.style) for look, number in counts(s.tally) if number or look.kind == "scored"]
    if s.still_open:
        terms.append(("not yet ended", s.still_open, "yellow" if s.still_open > 0 else "bold red"))
    for index, (label, number, style) in enumerate(terms):
        line.append(" + " if index else " ")
        line.append(f"{number:,} {label}", style=style)
    return line


def _outcomes(s: Summary) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("outcome", no_wrap=True)
    table.add_column("episodes", justify="right", no_wrap=True, min_width=8)
    table.add_column("share", justify="right", no_wrap=True, min_width=6)
    table.add_column("meaning", style="bright_black", no_wrap=True, overflow="ellipsis")
    for look, number in counts(s.tally):
        share = f"{number / s.requested:.1%}" if number and s.requested else ""
        style = look.style if number else "bright_black"
        causes = s.causes.get(look.kind)
        meaning = _told(causes) if causes else look.meaning
        table.add_row(Text(look.label, style=style), Text(f"{number:,}", style=style), share, meaning)
    return table


def _told(causes: dict[str, int]) -> str:
    return "by the machine: " + ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in causes.items())


def _score(s: Summary) -> Text:
    line = Text.assemble((f"{s.full_marks} of {s.requested}", "bold green"), " with reward 1")
    if s.tally.mean_reward is not None:
        line.append(f", mean reward {s.tally.mean_reward:.4f}")
        if s.tally.scored != s.requested:
            line.append(f" over the {s.tally.scored:,} scored")
    return line


def _learned(s: Summary, width: int) -> RenderableType:
    parts: list[RenderableType] = []
    if any(reward is not None for reward in s.rewards):
        parts += [Text("mean reward by step", style="bold"), curve(s.rewards, min(max(width - 4, 20), 90), 8), ""]
    held_out = Text.assemble(("held-out success", "bold"), "  ")
    held_out.append_text(_success(s.before)).append(" before → ").append_text(_success(s.after)).append(" after")
    asked = s.run.config.get("eval_episodes")
    held_out.append(f"  ({asked} episodes each, {len(s.rewards)} steps)", style="bright_black")
    return Group(*parts, held_out)


def success(ended: Tally) -> float:
    """Share of the episodes asked for that earned the reward: what was not scored did not."""
    return ended.reward_sum / ended.requested if ended.requested else 0.0


def _success(ended: Tally | None) -> Text:
    return Text("not measured", style="yellow") if ended is None else Text(f"{success(ended):.1%}", style="bold green")


def _rows(s: Summary) -> Text:
    assert s.rows is not None
    line = Text(f"{s.rows.used:,} training rows of {count(s.rows.scored, 'scored training episode')}; ")
    if s.rows.not_scored:
        line.append(f"{s.rows.not_scored:,} of them from an episode that was not scored", style="bold red")
    else:
        line.append("none from an episode that was not scored", style="green")
    return line


def _restarts(s: Summary, width: int) -> RenderableType:
    if not s.restarts:
        return Text("restarts  none", style="bright_black")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("restarts", justify="right", style="yellow", no_wrap=True)
    table.add_column("by supervisor", no_wrap=True)
    table.add_column("of", no_wrap=True)
    table.add_column("last reason", style="bright_black", no_wrap=True)
    supervisors = [path_tail(item.supervisor, max(width // 3, 16)) for item in s.restarts]
    names = max(len(item.child) for item in s.restarts)
    # What is left beside the other columns, their padding and the margin.
    room = width - 2 - len("restarts") - max(map(len, [*supervisors, "by supervisor"])) - names - 8
    for supervisor, item in zip(supervisors, s.restarts, strict=True):
        table.add_row(f"{item.count:,}", supervisor, item.child, one_line(item.last_reason, max(room, 12)))
    return table


def _next(s: Summary, hint: str) -> Text:
    proposals = [f"palmette report {s.run.id}{hint}"]
    if s.state != "completed":
        proposals.insert(0, f"palmette resume {s.run.id}{hint}")
    line = Text("next     ", style="bright_black")
    for index, proposal in enumerate(proposals):
        line.append("   " if index else "")
        line.append(proposal, style="bold")
    return line


def print_json(summary: Summary, *, seconds: float | None, journal: str) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(as_json(summary, seconds, journal)), indent=2).decode())
    sys.stdout.write("\n")
    sys.stdout.flush()


def as_json(s: Summary, seconds: float | None, journal: str) -> dict[str, object]:
    """What ``--json`` prints."""
    found: dict[str, object] = {
        "run": s.run.id,
        "kind": s.kind,
        "benchmark": s.run.benchmark,
        "state": s.state,
        "journal": journal,
        "requested": s.requested,
        "outcomes": {look.kind: number for look, number in counts(s.tally)},
        "causes": s.causes,
        "not_yet_ended": s.still_open,
        "mean_reward": s.tally.mean_reward,
        "reward_1": s.full_marks,
        "restarts": cast("object", msgspec.to_builtins(s.restarts)),
        "seconds": round(s.seconds if seconds is None else seconds, 3),
    }
    if s.kind == "train":
        found |= {
            "rewards": s.rewards,
            "held_out": {
                "episodes": s.run.config.get("eval_episodes"),
                "before": None if s.before is None else success(s.before),
                "after": None if s.after is None else success(s.after),
            },
            "training_rows": None if s.rows is None else msgspec.to_builtins(s.rows),
            "output": s.run.config.get("output_dir"),
        }
    return found
