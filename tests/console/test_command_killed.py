"""Kill anything, lose nothing: `kill -9` of a whole run at any moment, then `palmette resume` (promise 1)."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.command_line import CommandLine, end, programs, until

KILLS = 20
SEED = int(os.environ.get("PALMETTE_SEED", secrets.randbelow(2**31)))


def killed_and_resumed(folder: Path, words: list[str], tasks: int, share: float, jitter: float) -> CommandLine:
    """Kill the run's process group when ``share`` of its tasks have ended and ``jitter`` seconds have passed."""
    folder.mkdir()
    line = CommandLine(folder)
    process = line.start("run", *words)
    try:
        until(lambda: line.run_id() is not None, "the run's row")
        until(lambda: line.ended() >= int(share * tasks) or process.poll() is not None, "progress")
        moment = time.monotonic() + jitter
        until(lambda: time.monotonic() >= moment, "the moment")
    finally:
        end(process)
    run = line.run_id()
    assert run is not None
    found = line.json("resume", run)
    assert (found["requested"], found["not_yet_ended"], found["state"]) == (tasks, 0, "completed")
    return line


@pytest.mark.timeout(180)
def test_every_task_ends_exactly_once_however_the_run_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("k")  # short enough for sockets below it
    print(f"seed {SEED}: PALMETTE_SEED={SEED} repeats the moments")
    draw = random.Random(SEED)
    shares = [(number + draw.random()) / KILLS for number in range(KILLS)]
    jitters = [draw.uniform(0.0, 0.3 if share < 0.1 else 0.03) for share in shares]
    data = programs(tmp_path / "data", 15)
    kinds = {
        "trail": (["trail", "--agent", "reference", "--limit", "40", "--concurrency", "8"], 40),
        "programs": (["humaneval", "--data", str(data), "--agent", "reference", "--concurrency", "4"], 15),
    }
    undisturbed: dict[str, object] = {}
    for name, (words, tasks) in kinds.items():
        (tmp_path / name).mkdir()
        line = CommandLine(tmp_path / name)
        assert line.json("run", *words)["outcomes"]["scored"] == tasks
        undisturbed[name] = line.scores(str(line.run_id()))
    # Two at a time: the moments differ more than on an idle machine, and it takes half as long.
    with ThreadPoolExecutor(2) as threads:
        rounds = [
            (name, threads.submit(killed_and_resumed, tmp_path / str(number), *kinds[name], share, jitter))
            for number, (share, jitter) in enumerate(zip(shares, jitters, strict=True))
            for name in [list(kinds)[number % 2]]
        ]
        for name, done in rounds:
            line = done.result()
            assert line.scores(str(line.run_id())) == undisturbed[name]
            assert line.leftovers() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_stops_in_order_and_goes_on_where_it_was(
    command_line: CommandLine, number: signal.Signals, code: int
) -> None:
    programs(command_line.folder / "data", 18, seconds=0.05)
    process = command_line.start("run", "humaneval", "--data", "data", "--agent", "reference", "--concurrency", "4")
    try:
        until(lambda: command_line.ended() >= 5, "five ends")
        process.send_signal(number)
        assert process.wait(20) == code
    finally:
        end(process)
    run = str(command_line.run_id())
    out, err = command_line.output()
    ended = command_line.ended()
    assert 5 <= ended < 18
    assert f"palmette resume {run}" in err
    assert "not yet ended" in out
    assert {kind for kind, _ in command_line.scores(run).values()} == {"scored"}, "what was stopped has not ended"
    assert command_line.leftovers() == []
    assert command_line.json("runs")[0]["state"] == "interrupted"
    found = command_line.json("resume", run)
    assert (found["outcomes"]["scored"], found["reward_1"], found["state"]) == (18, 12, "completed")
    assert "nothing to resume" in command_line.run("resume", run)[1]


def test_a_second_interrupt_does_not_wait(command_line: CommandLine) -> None:
    programs(command_line.folder / "data", 4, seconds=20)
    process = command_line.start("run", "humaneval", "--data", "data", "--agent", "reference", "--concurrency", "4")
    try:
        until(lambda: len(command_line.leftovers()) >= 4 + 1 + 1, "sandboxes")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        end(process)
    # What is left, if anything, is swept by whoever comes next.
    command_line.run("run", "trail", "--agent", "reference", "--limit", "1")
    assert command_line.leftovers() == []
