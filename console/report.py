"""One self-contained HTML page about a run: no script, no request, nothing beside the file.

>>> from palmette.benchmarks.outcomes import Tally
>>> run = RunFacts(run_id="k3", benchmark="gsm8k", agent="reference")
>>> page = render_report(ReportData(run=run, tally=Tally(scored=2, reward_sum=1.0), rewards=(1.0, 0.0)))
>>> page.startswith("<!doctype html>") and "2</b> requested" in page
True
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template

from palmette import __version__
from palmette.console.charts import cumulative_mean, histogram, line_chart
from palmette.console.palette import OUTCOMES, counts
from palmette.console.plain import count, duration, one_line, printable
from palmette.console.report_data import FailedEpisode, ReportData, RunFacts, Training, TrainingRows
from palmette.console.snapshot import RestartCount


def render_report(data: ReportData) -> str:
    """``data`` as an HTML document, to be written as UTF-8. Every text in it is escaped."""
    page = files("palmette.console").joinpath("report_template.html").read_text(encoding="utf-8")
    run = data.run
    parts = [
        _header(run),
        _numbers(data),
        _rewards(data),
        _outcomes(data),
        _rows(data.training.rows) if data.training and data.training.rows else "",
        _restarts(data.restarts),
        _failed(data.failed, data.failed_left_out),
        f"<footer>Written by palmette {escape(__version__)}.</footer>",
    ]
    title = f"{run.benchmark} · {run.agent} · {run.run_id}"
    return Template(page).substitute(title=_text(title), body="\n".join(part for part in parts if part))


def _text(text: str) -> str:
    return escape(printable(text))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _header(run: RunFacts) -> str:
    when = datetime.fromtimestamp(run.started, UTC).strftime("%-d %B %Y, %H:%M UTC") if run.started is not None else ""
    facts = {
        "run": run.run_id,
        "started": when,
        "took": duration(run.seconds) if run.seconds is not None else "",
        "model": run.model,
        "machine": run.machine,
        "state": "" if run.state == "finished" else run.state,
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items() if value)
    command = f'<p class="command"><code>{_text(run.command)}</code></p>' if run.command else ""
    return (
        f'<header>\n<p class="eyebrow">palmette report</p>\n<h1>{_text(run.benchmark)} · {_text(run.agent)}</h1>\n'
        f'<dl class="facts">{shown}</dl>\n{command}\n</header>'
    )


def _numbers(data: ReportData) -> str:
    tally = data.tally
    numbers: list[tuple[str, str]] = []
    held_out = data.training.held_out if data.training else None
    if held_out is not None and held_out.after is not None:
        before = f"{held_out.before:.1%} → " if held_out.before is not None else ""
        numbers.append((f"{before}{held_out.after:.1%}", f"success on {held_out.episodes:,} held-out episodes"))
    elif tally.mean_reward is not None:
        numbers.append((f"{tally.mean_reward:.3f}", f"mean reward of {tally.scored:,} scored"))
    if data.training is not None:
        numbers.append((f"{data.training.steps:,}", "optimiser steps"))
    numbers.append((f"{tally.requested:,}", "episodes ended"))
    restarts = sum(item.count for item in data.restarts)
    numbers.append((f"{restarts:,}", "restarts by supervisors"))
    cards = "".join(
        f'<div class="number"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in numbers
    )
    return f'<div class="numbers">{cards}</div>'


def _outcomes(data: ReportData) -> str:
    tally = data.tally
    still_open = max((data.planned or 0) - tally.requested, 0)
    requested = tally.requested + still_open
    terms = [(look.label, number) for look, number in counts(tally)]
    if still_open:
        terms.append(("not yet ended", still_open))
    summed = " + ".join(
        f'<span class="{"zero" if number == 0 else "term"}">{number:,} {escape(label)}</span>'
        for label, number in terms
    )
    bars = [(look.kind, number) for look, number in counts(tally)] + [("open", still_open)]
    stack = "".join(f'<i style="flex:{number} 0 0;background:var(--{kind})"></i>' for kind, number in bars if number)
    rows = [
        (look.kind, look.label, number, look.meaning) for look, number in counts(tally)
    ] + [("open", "not yet ended", still_open, "the run can be resumed")] * (still_open > 0)  # fmt: skip
    body = "".join(
        f'<tr class="{"zero" if number == 0 else "some"}">'
        f'<td class="k"><span class="swatch" style="background:var(--{kind})"></span>{escape(label)}</td>'
        f'<td class="n">{number:,}</td><td class="n">{_share(number, requested)}</td>'
        f'<td class="soft">{meaning}</td></tr>'
        for kind, label, number, meaning in rows
    )
    return _section(
        "Outcomes",
        f'<p class="equation"><b>{requested:,}</b> requested = {summed}</p>\n'
        f'<div class="stack">{stack}</div>\n<div class="scroll"><table><thead><tr><th>outcome</th>'
        '<th class="n">episodes</th><th class="n">share</th><th></th></tr></thead>'
        f'<tbody>{body}</tbody><tfoot><tr><td>requested</td><td class="n">{requested:,}</td><td></td><td></td></tr>'
        "</tfoot></table></div>",
    )


def _share(number: int, of: int) -> str:
    return f"{number / of:.1%}" if number and of else ""


def _rewards(data: ReportData) -> str:
    if data.training is not None:
        return _section("Mean reward by step", _training_curve(data.training))
    if not data.rewards:
        return _section("Rewards", '<p class="empty">No episode was scored, so there is no reward to draw.</p>')
    charts = [cumulative_mean(data.rewards, title="Mean reward of the episodes scored so far")]
    section = _section("Mean reward as episodes ended", charts[0])
    if len(set(data.rewards)) > 2:
        section += "\n" + _section("Distribution of rewards", histogram(data.rewards, title="Episodes by reward"))
    return section


def _training_curve(training: Training) -> str:
    held_out = training.held_out
    levels = [
        (f"{value:.0%} {name}", value)
        for name, value in (("before", held_out.before), ("after", held_out.after))
        if value is not None
    ] if held_out is not None else []  # fmt: skip
    if not any(point.mean is not None for point in training.points):
        return '<p class="empty">No optimiser step has a reward yet.</p>'
    chart = line_chart(
        training.points, title="Mean reward by optimiser step", x_label="optimiser step", levels=levels,
        marks=training.marks,
    )  # fmt: skip
    if not training.marks:
        return chart
    items = "".join(f"<li>step {mark.step:,}: {_text(mark.label)}</li>" for mark in training.marks)
    return f'{chart}\n<ul class="marks">{items}</ul>'


def _rows(rows: TrainingRows) -> str:
    left_out = rows.scored - rows.used
    equation = (
        f'<p class="equation"><b>{rows.scored:,}</b> scored = {rows.used:,} used as training rows + '
        f"{left_out:,} left out</p>"
    )
    if rows.not_scored:
        verdict = (
            f'<p class="verdict bad">{count(rows.not_scored, "training row")} came from an episode that was not '
            "Scored. This must never happen: please report it with this page.</p>"
        )
    elif left_out < 0:
        verdict = (
            f'<p class="verdict bad">{count(-left_out, "row")} more than there are scored episodes: an episode was '
            "used twice. This must never happen: please report it with this page.</p>"
        )
        equation = f'<p class="equation"><b>{rows.scored:,}</b> scored, {rows.used:,} used as training rows</p>'
    else:
        verdict = '<p class="verdict good">No training row came from an episode that was not Scored.</p>'
    return _section("Training rows", equation + "\n" + verdict)


def _restarts(restarts: Sequence[RestartCount]) -> str:
    if not restarts:
        return _section("Restarts by supervisor", '<p class="empty">No supervisor had to restart anything.</p>')
    ranked = sorted(restarts, key=lambda item: (item.supervisor, -item.count, item.child))
    body = ""
    for index, item in enumerate(ranked):
        again = index and ranked[index - 1].supervisor == item.supervisor
        body += (
            f'<tr><td class="k">{"" if again else _text(item.supervisor)}</td><td class="k">{_text(item.child)}</td>'
            f'<td class="n">{item.count:,}</td><td class="w">{_reason(item.last_reason)}</td></tr>'
        )
    total = sum(item.count for item in ranked)
    return _section(
        "Restarts by supervisor",
        '<div class="scroll"><table><thead><tr><th>supervisor</th><th>child</th><th class="n">restarts</th>'
        f"<th>last reason</th></tr></thead><tbody>{body}</tbody>"
        f'<tfoot><tr><td>all</td><td></td><td class="n">{total:,}</td><td></td></tr></tfoot></table></div>',
    )


def _failed(failed: Iterable[FailedEpisode], left_out: int) -> str:
    labels = {look.kind: look.label for look in OUTCOMES}
    body = "".join(
        f'<tr><td class="w">{_text(episode.task)}{_attempt(episode.attempt)}</td>'
        f'<td class="k"><span class="swatch" style="background:var(--{_known(episode.outcome)})"></span>'
        f"{_text(labels.get(episode.outcome, episode.outcome))}{_cause(episode.cause)}</td>"
        f'<td class="w">{_reason(episode.reason)}</td></tr>'
        for episode in failed
    )
    if not body:
        return _section("Episodes without a reward", '<p class="empty">None: every episode that ended was scored.</p>')
    more = f'<p class="soft">… and {left_out:,} more.</p>' if left_out else ""
    return _section(
        "Episodes without a reward",
        '<div class="scroll"><table><thead><tr><th>task</th><th>outcome</th><th>reason</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}",
    )


def _known(kind: str) -> str:
    """A colour's name for the style sheet, whatever ``kind`` says."""
    return kind if any(look.kind == kind for look in OUTCOMES) else "open"


def _attempt(attempt: int) -> str:
    return f' <span class="soft">attempt {attempt}</span>' if attempt > 1 else ""


def _cause(cause: str) -> str:
    return f' <span class="soft">{_text(cause.replace("_", " "))}</span>' if cause else ""


def _reason(reason: str) -> str:
    """Short reasons as they are; long ones folded under the line that says most."""
    if not reason.strip():
        return '<span class="soft">no reason given</span>'
    text = printable(reason).strip()
    if "\n" not in text and len(text) <= 200:
        return escape(text)
    lines = text.splitlines()
    # A traceback says what happened in its last line.
    headline = one_line(lines[-1] if lines[0].startswith("Traceback ") else lines[0], 160)
    return f"<details><summary>{escape(headline)}</summary><pre><code>{escape(text)}</code></pre></details>"
