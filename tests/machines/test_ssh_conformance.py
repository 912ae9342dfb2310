"""Machines over ssh keep every promise of the contract."""

from __future__ import annotations

import pytest
from ssh_support import nothing_left
from support.ssh_server import SshServer

from palmette.machines.conformance import check, checks

pytestmark = pytest.mark.usefixtures("ssh_server")


async def test_ssh_machines_keep_the_contract(ssh_server: SshServer) -> None:
    # Thousands of files are the runner's business, which is the same on every backend, and take their time.
    report = await check(ssh_server.image(), only=[each.name for each in checks() if each.name != "many_files"])
    assert not report.broken
    assert report.kept > 40
    await nothing_left(ssh_server)
