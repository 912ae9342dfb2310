"""The reference, compiled once."""

from __future__ import annotations

import pytest
from differential.otp_side import Reference, is_here
from support.debian import NotInstalled, install


@pytest.fixture(scope="session")
def otp(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """OTP's ``supervisor``; the tests that need it are skipped where there is no Erlang."""
    try:
        install("erlang-base", is_here)
    except NotInstalled as reason:
        pytest.skip(str(reason))
    return Reference(tmp_path_factory.mktemp("otp"))
