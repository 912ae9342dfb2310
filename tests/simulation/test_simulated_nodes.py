"""Process nodes in simulation: the real links and codec, on a network that delays, loses, repeats and comes apart."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from simulation import node_traffic

from palmette.actors import simulation, wire
from palmette.actors.simulation import Fault, RandomFaults, SimulationFailed
from palmette.actors.simulation.faults import NODE_KINDS

FAULTS = RandomFaults(rate=0.3, match="/all/*")


def test_traffic_under_faults_loses_nothing_silently_and_delivers_nothing_twice() -> None:
    """Hundreds of seeds; every kind of fault strikes many times. What is checked is in ``node_traffic.check``."""
    struck = Counter[str]()
    outcomes = Counter[str]()
    for seed in range(300):
        result = simulation.run(node_traffic.main, seed=seed, faults=FAULTS)
        struck.update(fault.kind for fault in result.faults)
        outcomes.update(outcome for [outcome] in node_traffic.Book.ledger.outcomes.values())
    assert all(struck[kind] >= 20 for kind in NODE_KINDS), struck
    assert all(outcomes[outcome] >= 20 for outcome in ("answer", "ActorDied", "DeadlineExceeded")), outcomes


@pytest.mark.parametrize("kind", NODE_KINDS)
def test_each_kind_of_fault_alone_is_survived(kind: simulation.Kind) -> None:
    struck = 0
    for seed in range(10):
        faults = RandomFaults(rate=0.8, match="/all/*", kinds=(kind,))
        struck += len(simulation.run(node_traffic.main, seed=seed, faults=faults).faults)
    assert struck > 20


Seeing = wire.FrameReader


class Blind(Seeing):
    """A planted bug, kept as a fixture: a reader that does not look at the numbers of frames."""

    def feed(self, data: bytes) -> Iterator[wire.Frame]:
        self._buffer += data
        while len(self._buffer) >= wire.HEADER.size:
            length, _ = wire.HEADER.unpack_from(self._buffer)
            whole = wire.HEADER.size + length
            if len(self._buffer) < whole:
                return
            plain = wire.HEADER.pack(length, 0) + bytes(self._buffer[wire.HEADER.size : whole])
            del self._buffer[:whole]
            yield from Seeing(trusting=True).feed(plain)


@pytest.mark.parametrize(("kind", "complaint"), [("duplicate", "twice"), ("drop", "lost")])
def test_a_link_that_does_not_count_is_found_out_and_its_seed_replays(
    monkeypatch: pytest.MonkeyPatch, kind: simulation.Kind, complaint: str
) -> None:
    monkeypatch.setattr(wire, "FrameReader", Blind)
    faults = RandomFaults(rate=0.5, match="/all/*", kinds=(kind,))
    found: SimulationFailed | None = None
    for seed in range(100):
        try:
            simulation.run(node_traffic.main, seed=seed, faults=faults)
        except SimulationFailed as failure:
            if complaint in str(failure):
                found = failure
                break
    assert found is not None
    with pytest.raises(SimulationFailed) as again:
        simulation.run(node_traffic.main, seed=found.seed, faults=faults)
    assert again.value.log == found.log
    smallest = simulation.shrink(node_traffic.main, found)
    assert [fault.kind for fault in smallest.faults] == [kind]
