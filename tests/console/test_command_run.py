"""`palmette run` and what looks back on it: table, JSON, runs, report, the real data sets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support.command_line import CommandLine, programs
from support.openai_server import OpenAIServer, says

DATA = Path(os.environ.get("PALMETTE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def data(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"the data set {name} is not in {DATA}; name its parent with PALMETTE_DATA")
    return str(DATA / name)


def test_a_run_prints_the_table_of_outcomes_and_what_to_type_next(command_line: CommandLine) -> None:
    out, err = command_line.run("run", "trail", "--agent", "reference", "--limit", "12")
    run = command_line.run_id()
    assert "12 requested = 12 scored" in out
    assert "12 of 12 with reward 1, mean reward 1.0000" in out
    assert f"palmette report {run}" in out
    assert str(command_line.journal) in out
    assert "palmette:" not in err
    assert command_line.leftovers() == []


def test_json_is_one_object_on_standard_output_and_nothing_else(command_line: CommandLine) -> None:
    programs(command_line.folder / "data", 4)
    found = command_line.json("run", "humaneval", "--data", "data", "--agent", "reference", "--samples", "2")
    assert found["requested"] == sum(found["outcomes"].values()) == found["outcomes"]["scored"] == 8
    assert found["reward_1"] == 4
    assert found["mean_reward"] == 0.5
    assert (found["state"], found["not_yet_ended"]) == ("completed", 0)
    [listed] = command_line.json("runs")
    assert (listed["run"], listed["ended"], listed["planned"]) == (found["run"], 8, 8)


def test_a_failing_agent_is_counted_and_its_restarts_are_told_by_supervisor(command_line: CommandLine) -> None:
    # The answer is there, but python3 is not: the judge cannot judge, and that is no zero.
    programs(command_line.folder / "data", 1)
    command_line.environment["PATH"] = "/nowhere"
    found = command_line.json("run", "humaneval", "--data", "data", "--agent", "reference")
    assert found["outcomes"]["judge_failed"] == 1
    assert found["mean_reward"] is None
    [restarts] = found["restarts"]
    assert restarts["supervisor"].endswith("/episodes/*")
    assert (restarts["child"], restarts["count"]) == ("evaluator", 3)


def test_the_report_is_one_file_that_asks_for_nothing_else(command_line: CommandLine) -> None:
    command_line.run("run", "trail", "--agent", "silent", "--limit", "3")
    run = command_line.run_id()
    assert run is not None
    out, _ = command_line.run("report", run[:4], "-o", "page.html")
    page = (command_line.folder / "page.html").read_text()
    assert out == "page.html\n"
    assert run in page
    assert "<b>3</b> requested" in page
    assert "palmette run trail --agent silent --limit 3" in page
    assert re.findall(r"(?:src|href)\s*=|@import|url\(|<script", page) == []


async def test_react_plays_against_an_openai_compatible_server(
    command_line: CommandLine, openai_server: OpenAIServer
) -> None:
    import asyncio

    folder = command_line.folder / "data"
    folder.mkdir()
    rows = [{"question": f"{n} + 1?", "answer": f"add\n#### {n + 1}"} for n in range(2)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    openai_server.plan(says("#### 1"), says("#### 7"))
    found = await asyncio.to_thread(
        command_line.json, "run", "gsm8k", "--data", "data", "--model", "openai/served", "--base-url",
        openai_server.base_url, "--concurrency", "1",
    )  # fmt: skip
    assert found["outcomes"]["scored"] == 2
    assert found["reward_1"] == 1
    assert [request.body["model"] for request in openai_server.requests] == ["served", "served"]


async def test_a_run_stops_when_its_dollars_are_spent(command_line: CommandLine) -> None:
    """One request too many for each agent at most; what was scored stays."""
    import asyncio

    folder = command_line.folder / "data"
    folder.mkdir()
    rows = [{"question": f"{n} + 1?", "answer": f"add\n#### {n + 1}"} for n in range(40)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    async with OpenAIServer(rule=lambda request: says("#### 1", cost=0.01)) as server:
        _, err = await asyncio.to_thread(
            command_line.run, "run", "gsm8k", "--data", "data", "--model", "openai/served", "--base-url",
            server.base_url, "--concurrency", "2", "--dollars", "0.05", code=1,
        )  # fmt: skip
        assert 5 <= len(server.requests) <= 7
    assert "spent" in err
    assert 1 <= command_line.ended() <= 7


@pytest.mark.parametrize(("agent", "right"), [("recorded:175b_finetuning", 458), ("recorded:6b_finetuning", 286)])
def test_gsm8k_gives_the_figures_of_its_recordings(command_line: CommandLine, agent: str, right: int) -> None:
    place = data("gsm8k")
    out, _ = command_line.run("run", "gsm8k", "--data", place, "--agent", agent)
    assert f"{right} of 1319 with reward 1" in out
    assert "1,319 requested = 1,319 scored" in out
    recorded = [json.loads(line) for line in Path(place, "recorded_solutions.jsonl").read_text().splitlines()]
    correct = [bool(row[agent.partition(":")[2]]["is_correct"]) for row in recorded]
    run = command_line.run_id()
    assert run is not None
    scores = command_line.scores(run)
    by_number = sorted(scores.items(), key=lambda item: int(re.sub(r"\D", "", item[0].rpartition("/")[2])))
    assert sum(correct) == right
    assert sorted(reward == 1.0 for _, (_, reward) in by_number) == sorted(correct)


@pytest.mark.parametrize(("agent", "right"), [("reference", 164), ("silent", 0)])
def test_humaneval_gives_all_to_its_solutions_and_nothing_to_silence(
    command_line: CommandLine, agent: str, right: int
) -> None:
    found = command_line.json("run", "humaneval", "--data", data("humaneval"), "--agent", agent)
    assert (found["reward_1"], found["outcomes"]["scored"]) == (right, 164)
    assert command_line.leftovers() == []
