"""Every test here runs in real time and in the simulation: see ``support.worlds``."""

from support.world_fixture import pytest_generate_tests as pytest_generate_tests
from support.world_fixture import world as world
