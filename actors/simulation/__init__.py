"""Simulation: the same application on a virtual clock, under a seeded schedule and injected faults."""

from palmette.actors.simulation.clock import RealTime
from palmette.actors.simulation.decorator import simulate
from palmette.actors.simulation.faults import Fault, InjectedFault, Kind, RandomFaults
from palmette.actors.simulation.loop import START, RanAway, SimulatedLoop, Stuck
from palmette.actors.simulation.node_loop import NodeLoop
from palmette.actors.simulation.run import SimulationFailed, SimulationResult, run, shrink
from palmette.actors.simulation.world import EventLog, SimulatedSystem

__all__ = [
    "START",
    "EventLog",
    "Fault",
    "InjectedFault",
    "Kind",
    "NodeLoop",
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
