"""Why machines ended under episodes is told on every surface: the last screen, JSON, the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palmette.benchmarks.journal import EpisodeEnded, JournalStore
from palmette.benchmarks.outcomes import AgentFailed, InfraFailed, Outcome, Scored
from palmette.console.closing import print_closing, print_json
from palmette.console.journal_report import report_data
from palmette.console.report import render_report
from palmette.console.summary import summarise

OUTCOMES: tuple[Outcome, ...] = (
    Scored(reward=1.0),
    AgentFailed(reason="MachineBroken: exec 'python'", cause="out_of_memory"),
    AgentFailed(reason="KeyError: 'x'"),
    InfraFailed(reason="machine: MachineLost: start", cause="daemon_gone"),
    InfraFailed(reason="machine: MachineLost: exec 'ls'", cause="daemon_gone"),
    InfraFailed(reason="machine: MachineLost: exec 'ls'", cause="machine_killed"),
)


def test_causes_are_counted_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with JournalStore(f"sqlite:///{tmp_path}/runs.db") as store:
        run = store.create_run("sums", {"benchmark": "sums", "planned": len(OUTCOMES)})
        ends = [
            EpisodeEnded(run=run.id, task=f"t{n}", sample=0, attempt=1, outcome=each, started=0, finished=1, seconds=1)
            for n, each in enumerate(OUTCOMES)
        ]
        store.commit(ends)
        summary = summarise(store, run)
        page = render_report(report_data(store, run))
    causes = {"agent_failed": {"out_of_memory": 1}, "infra_failed": {"daemon_gone": 2, "machine_killed": 1}}
    assert summary.causes == causes
    print_json(summary, seconds=None, journal="")
    assert json.loads(capsys.readouterr().out)["causes"] == causes
    print_closing(summary, seconds=None, journal="", hint="")
    shown = capsys.readouterr().out
    assert "by the machine: 2 daemon gone, 1 machine killed" in shown
    assert "by the machine: 1 out of memory" in shown
    assert page.count('<span class="soft">daemon gone</span>') == 2
    assert page.count('<span class="soft">out of memory</span>') == 1
