"""Simulation: the same application on a virtual clock, under a seeded schedule and injected faults."""

from palmette.actors.simulation.clock import RealTime
from palmette.actors.simulation.decorator import simulate
from palmette.actors.simulation.faults import Fault, InjectedFault, Kind, RandomFaults
from palmette.actors.simulation.loop import RanAway, SimulatedLoop, Stuck
from palmette.actors.simulation.run import SimulationFailed, SimulationResult, run, shrink
from palmette.actors.simulation.world import EventLog, SimulatedSystem

__all__ = [
    "EventLog",
    "Fault",
    "InjectedFault",
    "Kind",
    "RanAway",
    "RandomFaults",
    "RealTime",
    "SimulatedLoop",
    "SimulatedSystem",
    "SimulationFailed",
    "SimulationResult",
    "Stuck",
    "run",
    "shrink",
    "simulate",
]
