"""What an image string says of a container."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.machines.docker import options as docker_options
from palmette.machines.docker.options import DockerOptions
from palmette.machines.errors import UnknownImage

_names = st.from_regex(r"[a-z][a-z0-9._/-]{0,20}(:[a-z0-9._-]{1,10})?", fullmatch=True)


@given(
    st.builds(
        DockerOptions,
        image=_names,
        memory=st.integers(16 << 20, 1 << 45),
        cpus=st.floats(0.01, 512).map(lambda cpus: float(f"{cpus:.2f}")),
        pids=st.integers(8, 1 << 22),
        network=st.sampled_from(["none", "bridge", "my net&work=?"]),
        user=st.sampled_from(["", "1000", "1000:1000", "nobody"]),
        shm_size=st.integers(0, 1 << 40),
        cap_add=st.lists(st.sampled_from(["CHOWN", "SETUID"]), unique=True).map(tuple),
    )
)
def test_options_are_read_back_as_they_are_written(options: DockerOptions) -> None:
    assert DockerOptions.parse(str(options)) == options


def test_an_image_alone_has_the_defaults() -> None:
    assert DockerOptions.parse("registry.local:5000/python@sha256:0a") == DockerOptions(
        image="registry.local:5000/python@sha256:0a"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "docker run"),
        ("python?memory=2x", "512m"),
        ("python?memory=1m", "16 MiB"),
        ("python?cpus=0", "0.01"),
        ("python?cpus=nan", "0.01"),
        ("python?pids=1", "at least 8"),
        ("python?pids=many", "many"),
        ("python?memory=1g&memory=2g", "twice"),
        ("python?privileged=true", "no option 'privileged'"),
        ("python?network=host", "loopback"),
        ("python?network=container:other", "loopback"),
        ("python?memory", "bad query field"),
        (" python", "docker run"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(UnknownImage, match=said):
        DockerOptions.parse(text)


def test_the_example_is_true() -> None:
    assert doctest.testmod(docker_options).failed == 0
