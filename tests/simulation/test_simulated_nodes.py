"""Process nodes in simulation: the real links and codec, on a network that delays, loses, repeats and comes apart."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulation import node_traffic

from palmette.actors import System, simulation, wire
from palmette.actors.simulation import Fault, RandomFaults, SimulationFailed
from palmette.actors.simulation.faults import NODE_KINDS
from palmette.supervisors import DynamicSupervisor, StartRefused, child

FAULTS = RandomFaults(rate=0.3, match="/all/*")


async def short() -> dict[str, int]:
    return await node_traffic.main(rounds=8)


def test_traffic_under_faults_loses_nothing_silently_and_delivers_nothing_twice() -> None:
    """Many seeds; every kind of fault strikes many times. What is checked is in ``node_traffic.check``."""
    struck = Counter[str]()
    outcomes = Counter[str]()
    told = 0
    for seed in range(80):
        result = simulation.run(short, seed=seed, faults=FAULTS)
        struck.update(fault.kind for fault in result.faults)
        told += node_traffic.Book.ledger.told
        outcomes.update(outcome for [outcome] in node_traffic.Book.ledger.outcomes.values())
    assert all(struck[kind] >= 8 for kind in NODE_KINDS), struck
    assert told > 80 * 8, told
    assert all(outcomes[outcome] >= 8 for outcome in ("answer", "ActorDied", "DeadlineExceeded")), outcomes


@pytest.mark.parametrize("kind", NODE_KINDS)
def test_each_kind_of_fault_alone_is_survived(kind: simulation.Kind) -> None:
    struck = 0
    for seed in range(5):
        faults = RandomFaults(rate=0.8, match="/all/*", kinds=(kind,))
        struck += len(simulation.run(node_traffic.main, seed=seed, faults=faults).faults)
    assert struck > 10


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


def test_one_seed_writes_the_same_log_every_time_and_its_plan_does_the_same() -> None:
    drawn = simulation.run(node_traffic.main, seed=8, faults=FAULTS)
    assert {fault.kind for fault in drawn.faults} & set(NODE_KINDS)
    for _ in range(10):
        assert simulation.run(node_traffic.main, seed=8, faults=FAULTS).log == drawn.log
    assert simulation.run(node_traffic.main, seed=8, faults=drawn.faults).log == drawn.log


def test_when_garbage_is_collected_changes_nothing() -> None:
    """An address that was given up is held weakly, and counts its incarnations from 1 once it is forgotten."""
    faults = [Fault(kind="fail_start", path="/all/here", incarnation=number) for number in range(1, 6)]

    async def main() -> list[object]:
        async with System.start(node_traffic.tree()) as system:
            everybody = system.ref_at("/all", DynamicSupervisor)
            found = list[object]()
            for _ in range(6):
                with contextlib.suppress(StartRefused):
                    await everybody.call(DynamicSupervisor.start_child, child(node_traffic.Client, 0, name="here"))
                    found.append(system.slots["/all/here"].incarnation)
                await asyncio.sleep(1.0)
            return found

    thresholds = gc.get_threshold()
    results = set[str]()
    try:
        for often in (1, 7, 100, 100_000):
            gc.set_threshold(often)
            result = simulation.run(main, faults=faults)
            results.add(f"{result.value} {result.log}")
    finally:
        gc.set_threshold(*thresholds)
    assert len(results) == 1


def test_one_seed_writes_the_same_log_in_another_process() -> None:
    here = Path(__file__).resolve().parents[1]
    program = (
        "import hashlib; from palmette.actors import simulation; from palmette.actors.simulation import RandomFaults;"
        "from simulation import node_traffic;"
        "logs = [simulation.run(node_traffic.main, seed=n, faults=RandomFaults(rate=0.3, match='/all/*')).log"
        " for n in range(6)];"
        "print(hashlib.sha256(''.join(logs).encode()).hexdigest())"
    )
    told = set[str]()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(here)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        told.add(done.stdout.strip())
    logs = [simulation.run(node_traffic.main, seed=seed, faults=FAULTS).log for seed in range(6)]
    assert told == {hashlib.sha256("".join(logs).encode()).hexdigest()}


def test_real_nodes_and_simulated_ones_do_the_same_where_nothing_goes_wrong() -> None:
    """The same program, on processes and sockets, and on neither."""
    real = asyncio.run(node_traffic.main(rounds=2))
    assert real == {"/all/one": 14, "/all/two": 14, "/all/team/inner": 14, "answer": 9}
    for seed in range(10):
        assert simulation.run(lambda: node_traffic.main(rounds=2), seed=seed).value == real
