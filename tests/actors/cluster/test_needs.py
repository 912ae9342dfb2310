"""What a child may say that it needs."""

from __future__ import annotations

import doctest

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.actors import sizes
from palmette.actors.cluster.needs import BadNeeds, Needs, needs
from palmette.actors.sizes import parse_size, size_text


def test_numbers_are_counted_and_words_are_labels() -> None:
    asked = needs(gpu=1, memory="40GiB", zone="eu", tokens=2)
    assert asked.memory == 40 << 30
    assert asked.labels == {"zone": "eu"}
    assert asked.resources == {"tokens": 2.0}
    assert str(asked) == "gpu=1, memory=40GiB, zone=eu, tokens=2"


def test_gpus_are_packed_and_the_rest_is_spread() -> None:
    assert needs(gpu=1).strategy == "pack"
    assert needs(cpus=1).strategy == "spread"
    assert needs(gpu=1, strategy="spread").strategy == "spread"


def test_needs_cross_the_wire() -> None:
    asked = needs(gpu=2, share=0.5, gpu_memory="10GB", zone="eu", avoid=("a", "b"), wait=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=Needs) == asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": -1}, "whole GPUs, not -1"),
        ({"gpu": 0.5}, "gpu=1, share=0.5"),
        ({"gpus": 1}, "no option 'gpus'; did you mean 'gpu'"),
        ({"cpu": 1}, "did you mean 'cpus'"),
        ({"share": 0.5}, "say how many: gpu=1"),
        ({"gpu_memory": "1g"}, "say how many: gpu=1"),
        ({"gpu": 1, "share": 1.5}, "from 0.001 to 1, not 1.5"),
        ({"memory": "40 gigs"}, "40GiB"),
        ({"memory": -1}, "memory is a number from 0 on"),
        ({"cpus": float("nan")}, "cpus is a number from 0 on, not nan"),
        ({"tokens": -2}, "tokens is a number from 0 on"),
        ({"wait": float("inf")}, "every wait has a deadline"),
        ({"strategy": "best"}, "pack or spread, not 'best'"),
        ({"node": "a", "avoid": ["a"]}, "cannot be both"),
        ({"rack-id": "1"}, "cannot be called 'rack-id'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(options: dict[str, object], said: str) -> None:
    with pytest.raises(BadNeeds, match=said):
        needs(**options)  # pyright: ignore[reportArgumentType]


@given(st.integers(0, 1 << 55))
def test_sizes_are_read_back_as_they_are_written(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.text(max_size=8))
def test_any_text_is_a_size_or_refused_with_an_example(text: str) -> None:
    said = ""
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        said = str(error)
    assert not said or "512m, 40GiB" in said


def test_the_examples_are_true() -> None:
    assert doctest.testmod(sizes).failed == 0
