"""Needs are read as they are written, and what cannot be read is named."""

from __future__ import annotations

import doctest

import pytest

from palmette.actors import Needs, needs
from palmette.actors.cluster import needs_text
from palmette.actors.cluster.needs import BadNeeds
from palmette.actors.cluster.needs_text import parse_needs


@pytest.mark.parametrize(
    ("texts", "meant"),
    [
        ([], needs()),
        (["gpu=1", "gpu_memory=40GiB", "share=0.5"], needs(gpu=1, gpu_memory="40GiB", share=0.5)),
        (["cpus=2.5", "memory=8GiB", "docker=yes", "ssh=no"], needs(cpus=2.5, memory="8GiB", docker=True)),
        (["zone=eu", "tokens=2"], needs(zone="eu", tokens=2)),
        (["avoid=a,b", "strategy=pack", "wait=5"], needs(avoid=("a", "b"), strategy="pack", wait=5)),
        (["node=a"], needs(node="a")),
    ],
)
def test_needs_are_read_as_they_are_written(texts: list[str], meant: Needs) -> None:
    assert parse_needs(texts) == meant


def test_the_example_is_true() -> None:
    result = doctest.testmod(needs_text)
    assert result.attempted == 1
    assert result.failed == 0


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["gpu"], "KEY=VALUE, such as gpu=1 or zone=eu, not 'gpu'"),
        (["gpu="], "'gpu='"),
        (["gpu=one"], "'gpu=one' cannot be read"),
        (["docker=maybe"], "say yes or no"),
        (["gpu=1", "gpu=2"], "gpu is said twice"),
        (["gpus=1"], "did you mean 'gpu'"),
        (["memory=much"], "got 'much'"),
    ],
)
def test_what_cannot_be_read_is_named(texts: list[str], told: str) -> None:
    with pytest.raises(BadNeeds, match=told):
        parse_needs(texts)
