"""Every test begins with an empty diary."""

import pytest
from supervisors_support import Worker


@pytest.fixture(autouse=True)
def empty_diary() -> None:
    Worker.diary.clear()
    Worker.fail.clear()
    Worker.decline.clear()
    Worker.slow.clear()
