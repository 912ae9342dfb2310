"""README's five-minute tour, executed: what a newcomer types is what the tests run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tour import ROOT, agrees, blocks, sessions


@pytest.mark.timeout(300)
def test_the_tour_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    """Files are saved, commands are typed, and what comes out is what the page shows."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PALMETTE_JOURNAL": f"sqlite:///{tmp_path}/palmette.db",
        "PALMETTE_MACHINES": str(tmp_path / "machines"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    commands = 0
    for language, options, body in blocks("Five minutes"):
        if language == "python":
            (tmp_path / options.removeprefix("file=")).write_text(body)
            continue
        assert language == "console", f"a block of language {language!r} is not run by this test"
        for command, shown in sessions(body):
            done = subprocess.run(
                shlex.split(command),
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
            assert agrees(shown, done.stdout), f"$ {command}\nshown:\n{shown}\nprinted:\n{done.stdout}"
            commands += 1
    assert commands >= 5


def test_every_file_that_the_readme_points_to_exists() -> None:
    """A link that leads nowhere is worse than none."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
