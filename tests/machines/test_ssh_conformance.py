"""Machines over ssh keep every promise of the contract."""

from __future__ import annotations

import pytest
from ssh_support import nothing_left
from support.ssh_server import SshServer

from palmette.machines.conformance import check

pytestmark = pytest.mark.usefixtures("ssh_server")


async def test_ssh_machines_keep_the_contract(ssh_server: SshServer) -> None:
    report = await check(ssh_server.image())
    assert not report.broken
    assert report.kept > 40
    await nothing_left(ssh_server)
