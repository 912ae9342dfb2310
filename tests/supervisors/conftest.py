"""Every test here runs in real time and in the simulation (see ``support.worlds``), and begins with an empty diary."""

import pytest
from supervisors_support import Worker
from support.world_fixture import pytest_generate_tests as pytest_generate_tests
from support.world_fixture import world as world


@pytest.fixture(autouse=True)
def empty_diary() -> None:
    Worker.diary.clear()
    Worker.fail.clear()
    Worker.decline.clear()
    Worker.slow.clear()
