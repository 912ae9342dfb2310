"""Actors for the tests of placement in simulation. In a module of their own: nodes import them by name."""

from __future__ import annotations

from palmette.actors import Actor


class Person(Actor):
    """Lives somewhere."""
