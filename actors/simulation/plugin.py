"""The pytest plugin: ``--palmette-seed N`` runs simulated tests under the one seed ``N``."""

from __future__ import annotations

import pytest

from palmette.actors.simulation.decorator import Options


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("palmette").addoption(
        "--palmette-seed",
        type=int,
        default=None,
        metavar="N",
        help="run simulated tests under this seed only (a failure tells which)",
    )


def pytest_configure(config: pytest.Config) -> None:
    Options.seed = config.getoption("--palmette-seed")
