"""The wheel holds the whole house under one name, and works where the repository is not."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from house.layout import FLOORS, ROOT, modules


def run(*command: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it; its dependencies are those of this one, so nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("palmette-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index", wheel,
        cwd=folder,
    )  # fmt: skip
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return site


def test_the_wheel_installs_one_name_only(installed: Path) -> None:
    names = {entry.name for entry in installed.iterdir() if not entry.name.endswith((".dist-info", ".pth"))}
    assert names == {"palmette"}


def test_the_wheel_holds_every_module_and_what_lies_beside_them(installed: Path) -> None:
    for path in modules(*FLOORS):
        assert (installed / "palmette" / path.relative_to(ROOT)).is_file(), path
    assert (installed / "palmette" / "py.typed").is_file()
    assert (installed / "palmette" / "console" / "report_template.html").is_file()


def test_the_installed_palmette_is_imported_from_its_wheel(installed: Path) -> None:
    python = installed.parents[2] / "bin" / "python"
    script = "import palmette, palmette.actors; print(palmette.actors.__file__); print(palmette.__version__)"
    where, version = run(python, "-c", script, cwd=installed).split()
    assert Path(where).is_relative_to(installed)
    assert (installed / f"palmette-{version}.dist-info").is_dir()


def test_the_installed_command_tells_how_to_use_it(installed: Path) -> None:
    command = installed.parents[2] / "bin" / "palmette"
    text = run(command, "--help", cwd=installed)
    assert "demo" in text
    assert "resume" in text
    assert run(command.with_name("python"), "-m", "palmette", "--help", cwd=installed).count("demo")
