"""A machine in a container keeps every promise of the contract."""

from __future__ import annotations

import pytest
from docker_support import containers, images
from support.docker_daemon import IMAGE, DockerDaemon

from palmette.machines import conformance


@pytest.fixture(scope="module", autouse=True)
def daemon(docker_daemon: DockerDaemon) -> DockerDaemon:
    return docker_daemon


@pytest.mark.slow
@pytest.mark.parametrize("group", conformance.GROUPS)
async def test_it_keeps_what_the_contract_promises(
    daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    report = await conformance.check(f"docker:{IMAGE}?memory=256m", only=[group])
    assert report.broken == ()
    assert report.kept > 0
    assert containers(daemon) == []
    assert images(daemon) == []
