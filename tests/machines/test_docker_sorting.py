"""How the SDK's failures, the daemon's refusals and its events are sorted; no daemon is needed for it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from palmette.machines.docker.calls import Daemon, refusal, sorted_errors
from palmette.machines.docker.evidence import Event, State, cause_of
from palmette.machines.docker.keeper import EXPIRED
from palmette.machines.errors import ImageUnusable, MachineError, MachineLost, SnapshotNotPossible
from palmette.machines.evidence import Cause


async def test_without_a_daemon_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(MachineLost, match="is dockerd running") as caught:
        await Daemon().call(lambda client: client.ping(), "ask", timeout=5.0)
    assert caught.value.evidence is not None
    assert caught.value.evidence.cause == "daemon_gone"


def test_a_daemon_behind_ssh_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@somewhere")
    with pytest.raises(MachineError, match="ssh -L"):
        Daemon()


@pytest.mark.parametrize(
    ("below", "said"),
    [
        (PermissionError(13, "Permission denied"), "group docker"),
        (ssl.SSLCertVerificationError("self-signed"), "DOCKER_CERT_PATH"),
    ],
)
def test_a_way_to_the_daemon_that_is_barred_is_not_tried_again(below: Exception, said: str) -> None:
    import requests

    with pytest.raises(MachineError, match=said) as caught, sorted_errors("start", "unix:///x"):
        # As requests wraps it: among the arguments of an exception among its arguments.
        raise requests.ConnectionError(ConnectionError("Connection aborted.", below))
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "text", "kind", "cause"),
    [
        (404, "No such image: python:4", ImageUnusable, None),
        (400, 'exec: "python3": executable file not found in $PATH: unknown', ImageUnusable, None),
        (500, "unable to find user nobody: no matching entries in passwd file", MachineError, None),
        (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", MachineError, None),
        (500, "max depth exceeded", SnapshotNotPossible, None),
        (404, "No such container: x", MachineLost, "machine_removed"),
        (409, "Container x is not running", MachineLost, "machine_killed"),
        (500, "write /var/lib/docker/tmp/x: no space left on device", MachineLost, "disk_full"),
        (500, "fork/exec /proc/self/exe: resource temporarily unavailable", MachineLost, "too_many_processes"),
        (500, "something new", MachineLost, "unknown"),
    ],
)
def test_what_the_daemon_says_is_sorted(status: int, text: str, kind: type[MachineError], cause: Cause | None) -> None:
    error = refusal("start", status, text)
    assert type(error) is kind
    assert (error.evidence.cause if isinstance(error, MachineLost) and error.evidence else None) == cause


START = Event(action="start")
OOM = Event(action="oom")
KILL = Event(action="kill", signal="9")


def died(code: int, after: float = 0.0) -> Event:
    return Event(action="die", time=int(after * 1e9), exit_code=code)


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([START, died(EXPIRED)], "expired"),
        ([START, OOM, died(137, 1.0)], "out_of_memory"),
        ([START, OOM, died(137, 100.0)], "machine_killed"),
        ([START, OOM, KILL, died(137, 1.0)], "machine_killed"),
        ([START, KILL, died(137), START, OOM, died(137)], "out_of_memory"),
        ([START, died(1)], "machine_killed"),
        ([], "machine_removed"),
        ([START], "machine_removed"),
    ],
)
def test_events_tell_why_a_container_is_gone(events: list[Event], cause: Cause) -> None:
    assert cause_of("name", events).cause == cause


def test_a_state_tells_it_where_events_are_forgotten() -> None:
    assert cause_of("name", [], State(running=False, paused=False, exit_code=137, oom_killed=True)).cause == (
        "out_of_memory"
    )
    assert cause_of("name", [], State(running=False, paused=False, exit_code=EXPIRED, oom_killed=False)).cause == (
        "expired"
    )
