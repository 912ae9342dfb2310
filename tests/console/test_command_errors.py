"""Bad input ends in one clear sentence that names the value and the remedy; nothing recorded is lost (Done-when 6)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import CommandLine, end, programs, until

TRAIL = ("run", "trail", "--agent", "reference", "--limit", "2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "gsm9k"], ["'gsm9k'", "did you mean 'gsm8k'"]),
        (["run", "trail", "--agent", "refrence"], ["'refrence'", "reference"]),
        (["run", "trail", "--agent", "recorded:me"], ["'me'", "reference"]),
        (["run", "trail", "--agent", "react"], ["--model", "openai/NAME"]),
        (["run", "trail", "--model", "gpt-5"], ["'gpt-5'", "openai/NAME"]),
        (["run", "trail", "--model", "openai/x", "--base-url", "localhost:80"], ["localhost:80", "http://"]),
        (["run", "trail", "--model", "openai/x@http://me:secret@127.0.0.1:9/v1"], ["password", "OPENAI_API_KEY"]),
        (["run", "trail", "--agent", "reference", "--machine", "dokcer:x"], ["dokcer", "local"]),
        (["run", "trail", "--agent", "reference", "--limit", "0"], ["--limit", "at least 1"]),
        (["run", "trail", "--agent", "reference", "--concurrency", "many"], ["--concurrency", "many"]),
        (["run", "trail", "--agent", "reference", "--data", "."], ["trail", "--data"]),
        (["run", "trail", "--agnet", "reference"], ["--agnet", "--agent", "palmette run --help"]),
        (["run"], ["BENCHMARK", "palmette run --help"]),
        (["run", "gsm8k", "--agent", "reference"], ["gsm8k", "--data"]),
        (["run", "gsm8k", "--agent", "reference", "--data", "nowhere"], ["nowhere"]),
        (["fly"], ["fly", "palmette --help"]),
        (["train", "gsm8k"], ["gsm8k", "trail"]),
        (["train", "trail", "--steps", "0"], ["--steps", "at least 1"]),
    ],
)
def test_what_cannot_be_meant_is_told_with_code_2(command_line: CommandLine, words: list[str], told: list[str]) -> None:
    sentence = command_line.fails(*words, code=2)
    for part in told:
        assert part in sentence
    assert "secret" not in sentence
    assert command_line.leftovers() == []
    assert not command_line.journal.exists(), "nothing was started, so nothing is recorded"


def test_a_malformed_line_is_named_by_file_and_number(command_line: CommandLine) -> None:
    file = programs(command_line.folder / "data", 3) / "HumanEval.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:40], lines[2]]) + "\n")
    sentence = command_line.fails("run", "humaneval", "--data", "data", "--agent", "reference", code=2)
    assert f"{file}:2" in sentence
    assert "correct the line or remove it" in sentence


def test_a_run_that_does_not_exist_is_told_with_what_does(command_line: CommandLine) -> None:
    assert "start a run first" in command_line.fails("resume", "abc", code=1)
    command_line.run(*TRAIL)
    sentence = command_line.fails("resume", "zzz", code=2)
    assert "'zzz'" in sentence
    assert "palmette runs" in sentence
    command_line.fails("report", "zzz", code=2)


def test_an_unreachable_endpoint_is_told_before_anything_starts(command_line: CommandLine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        sentence = command_line.fails("run", "trail", "--model", "openai/x", "--base-url", url, code=1)
    assert url in sentence
    assert "--base-url" in sentence
    assert not command_line.journal.exists()


def test_a_missing_key_names_its_variable(command_line: CommandLine) -> None:
    sentence = command_line.fails("run", "trail", "--model", "openai/gpt-5", code=1)
    assert "OPENAI_API_KEY" in sentence
    assert "--base-url" in sentence


def test_a_journal_that_cannot_be_opened_is_named(command_line: CommandLine) -> None:
    place = command_line.folder / "no" / "such.db"
    sentence = command_line.fails(*TRAIL, "--journal", f"sqlite:///{place}", code=1)
    assert str(place) in sentence
    assert "directory" in sentence
    command_line.journal.write_text("not a database, but long enough to be taken for one " * 20)
    assert "name another" in command_line.fails(*TRAIL, code=1)
    assert "mysql" in command_line.fails(*TRAIL, "--journal", "mysql://me:secret@h/db", code=1)
    assert "secret" not in command_line.output()[1]


def test_debug_shows_the_traceback(command_line: CommandLine) -> None:
    command_line.environment["PALMETTE_DEBUG"] = "1"
    _, err = command_line.run("run", "gsm9k", code=2)
    assert "Traceback" in err
    assert "UnknownBenchmark" in err


@pytest.fixture
def small_disk(command_line: CommandLine) -> Iterator[Path]:
    """A file system of 400 kB."""
    place = command_line.folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=30)


def test_a_full_disk_ends_the_run_and_loses_nothing(command_line: CommandLine, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 120_000)
    command_line.journal = small_disk / "runs.db"
    command_line.environment["PALMETTE_JOURNAL"] = f"sqlite:///{command_line.journal}"
    sentence = command_line.fails("run", "trail", "--agent", "reference", "--limit", "400", code=1)
    assert "the disk is full" in sentence
    assert "free some space" in sentence
    run, ended = str(command_line.run_id()), command_line.ended()
    assert ended > 0
    assert f"palmette resume {run}" in command_line.output()[1]
    assert command_line.leftovers() == []
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True, timeout=30)
    found = command_line.json("resume", run)
    assert found["outcomes"]["scored"] == found["requested"] == 400


# The command, with a journal's twenty seconds of patience made two.
IMPATIENT = """
import msgspec
from palmette.benchmarks import run
from palmette.console.cli import main
run.PATIENT = msgspec.structs.replace(run.PATIENT, give_up_after=2.0)
main()
"""


def test_a_file_that_may_not_grow_ends_the_run_and_loses_nothing(command_line: CommandLine) -> None:
    command_line.run(*TRAIL)  # the tables are there; what comes now makes the file grow
    limit = command_line.journal.stat().st_size // 1024 + 60
    process = subprocess.run(
        ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "-", sys.executable, "-c", IMPATIENT, "run", "trail",
         "--agent", "reference", "--limit", "150"],
        cwd=command_line.folder, env=command_line.environment, capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.returncode == 1
    assert "file-size limit" in process.stderr
    assert "Traceback" not in process.stderr
    run, ended = str(command_line.run_id()), command_line.ended()
    assert ended > 2
    found = command_line.json("resume", run)
    assert found["outcomes"]["scored"] == found["requested"] == 150


def test_an_endpoint_that_says_no_stops_the_run(command_line: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        process = command_line.start("run", "trail", "--limit", "1", "--model", "openai/x", "--base-url", url)
        try:
            server.accept()[0].close()  # the preflight
            connection, _ = server.accept()
            with connection:
                until(lambda: b"\r\n\r\n" in connection.recv(1 << 16, socket.MSG_PEEK), "the request")
                connection.recv(1 << 16)
                body = b'{"error": {"message": "bad key"}}'
                head = f"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                assert process.wait(30) == 1
        finally:
            end(process)
    err = command_line.output()[1]
    assert "refuses the API key" in err
    assert "OPENAI_API_KEY" in err
    assert command_line.json("runs")[0]["state"] == "failed"
