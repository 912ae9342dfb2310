"""The reference, compiled once; and what the generator covered, printed under the summary."""

from __future__ import annotations

import pytest
from differential import coverage
from differential.otp_side import NoErlang, Reference, install


@pytest.fixture(scope="session")
def otp(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """OTP's ``supervisor``; the tests that need it are skipped where there is no Erlang."""
    try:
        install()
    except NoErlang as reason:
        pytest.skip(str(reason))
    return Reference(tmp_path_factory.mktemp("otp"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, figures in coverage.SEEN.items():
        terminalreporter.section(title)
        terminalreporter.write_line(coverage.table(figures))
