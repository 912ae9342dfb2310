"""A run's key is nowhere but in the environment that it came from: not in its journal, its report, or what it says."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

from support.command_line import CommandLine
from support.openai_server import OpenAIServer, Reaction, Request, says, status

from palmette.benchmarks.journal import JournalStore

CANARY = "sk-canary-51d0e"


def with_canary(folder: Path) -> list[str]:
    """Files that hold it."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def in_journal(path: Path) -> str:
    """All that it holds, unpacked by its owner, and every cell of every table as it is."""
    told: list[object] = []
    with JournalStore(f"sqlite:///{path}") as store:
        for run in store.list_runs():
            told += [run, store.events(run.id), store.episodes(run.id), store.leases(run=run.id)]
            for (task, sample), last in store.attempts(run.id).items():
                told += [store.turns(run.id, task, sample, attempt=attempt) for attempt in range(1, last + 1)]
    database = sqlite3.connect(path)
    tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    told += [row for table in tables for row in database.execute(f"select * from {table}")]
    database.close()
    return repr(told)


def data_set(folder: Path) -> None:
    folder.mkdir()
    rows = [{"question": f"{n} + 1?", "answer": f"add\n#### {n + 1}"} for n in range(6)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Quoting:
    """Answers every second request, and fails the others with the key in the error."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: Request) -> Reaction:
        self.asked += 1
        return (
            says("#### 1") if self.asked % 2 else status(500, f"bug while serving {request.headers['authorization']}")
        )


async def test_neither_the_journal_nor_the_report_nor_a_crash_report_holds_the_key(tmp_path: Path) -> None:
    """Though the server quotes it in every error."""
    line = CommandLine(tmp_path, OPENAI_API_KEY=CANARY, PALMETTE_DEBUG="1")
    data_set(tmp_path / "data")
    async with OpenAIServer(key=CANARY, rule=Quoting()) as server:
        words = ["run", "gsm8k", "--data", "data", "--model", "openai/served", "--base-url", server.base_url]
        out, err = await asyncio.to_thread(line.run, *words, "--concurrency", "2")
        assert "6 requested = 6 scored" in out
        assert len(server.requests) > 6, "agents crashed with that error"
        server.key = "another"
        refused = await asyncio.to_thread(line.run, *words, code=1)
    assert "Traceback" in refused[1], "the crash report"
    assert "refuses the API key" in "".join(refused)
    run = line.run_id()
    assert run is not None
    shown = [line.run("report", run, "-o", "page.html"), line.run("runs", "--json")]
    assert CANARY not in repr([out, err, refused, shown])
    assert "served" in in_journal(line.journal)
    assert CANARY not in in_journal(line.journal)
    assert with_canary(tmp_path) == []
