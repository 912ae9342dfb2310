"""Image strings find their backend, or say which there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from palmette.machines import UnknownImage, images, machine_for


async def test_local_is_a_machine_that_works(root: Path) -> None:
    machine = machine_for("local", owner="run-1")
    await machine.start()
    try:
        assert machine.id.startswith("run-1.")
        assert (await machine.exec("echo hello")).text == "hello\n"
    finally:
        await machine.stop()


@pytest.mark.parametrize("image", ["", "lokal", "podman:python:3.12", "Local"])
def test_an_unknown_image_is_told_which_exist(image: str) -> None:
    with pytest.raises(UnknownImage, match=r"those that exist are: .*'local'") as caught:
        machine_for(image, owner="run-1")
    assert repr(image) in str(caught.value)


@pytest.mark.parametrize("image", ["local:", "local:python"])
def test_local_takes_nothing_after_a_colon(image: str) -> None:
    with pytest.raises(UnknownImage, match="local"):
        machine_for(image, owner="run-1")


def test_the_backends_can_be_listed() -> None:
    assert images() == ["docker", "e2b", "local", "local+bwrap", "ssh"]
