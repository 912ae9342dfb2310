"""The examples in the kernel's and the supervisors' docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import palmette.actors
import palmette.supervisors

IN_A_NODE = {"keeper", "node", "node_logging", "sealed"}
"""They take over the process that imports them."""
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (palmette.actors, palmette.supervisors)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg and module.name not in IN_A_NODE
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_do_what_they_say(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_tutorials_are_among_them() -> None:
    supervisors = ("supervisor", "tasks", "partition")
    for name in ("palmette.actors.actor", *(f"palmette.supervisors.{module}" for module in supervisors)):
        assert doctest.testmod(importlib.import_module(name)).attempted > 3
