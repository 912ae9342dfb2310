"""The books: nothing is given twice, what is given back can be had again, and those who wait are not passed over."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from palmette.actors.cluster.books import Placed
from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.cluster.needs import Needs, Strategy
from palmette.actors.cluster.placement import Accounts, Unsatisfiable, Waiting

NAMES = ("a", "b", "c")
STRATEGIES: tuple[Strategy, ...] = ("pack", "spread")

hosts = st.builds(
    Capabilities,
    cpus=st.sampled_from([0, 1, 4]),
    memory=st.sampled_from([0, 8, 32]),
    gpus=st.integers(0, 4).map(lambda count: tuple(Gpu(index, memory=16) for index in range(count))),
    labels=st.sampled_from([{}, {"zone": "eu"}, {"zone": "us"}]),
    resources=st.sampled_from([{}, {"tokens": 1.0}]),
)


OTHERS: list[dict[str, str | float]] = [{}, {"zone": "eu"}, {"tokens": 0.1}, {"tokens": 1.0}]


@st.composite
def requests(draw: st.DrawFn) -> Needs:
    gpu = draw(st.integers(0, 3))
    others = draw(st.sampled_from(OTHERS))
    return Needs(
        gpu=gpu,
        gpu_memory=draw(st.sampled_from([0, 4, 10])) if gpu else 0,
        share=draw(st.sampled_from([None, 0.3, 0.5])) if gpu else None,
        cpus=draw(st.sampled_from([0, 0, 0.1, 1, 3])),
        memory=draw(st.sampled_from([0, 0, 8])),
        strategy=draw(st.sampled_from(STRATEGIES)),
        labels={name: value for name, value in others.items() if isinstance(value, str)},
        resources={name: value for name, value in others.items() if not isinstance(value, str)},
    )


class Books(RuleBasedStateMachine):
    """Any history of members and requests. ``held`` is kept here, apart from the books."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts()
        self.held: dict[str, tuple[Needs, Placed]] = {}
        self.line: dict[str, Needs] = {}
        self.numbers = itertools.count(1)
        self.offers: dict[str, tuple[int, Capabilities, int | None]] = {}

    def got(self, placed: Placed, asked: Needs) -> None:
        assert placed.lease not in self.held
        self.held[placed.lease] = (asked, placed)
        self.line.pop(placed.lease, None)

    def serve(self) -> None:
        for served in self.accounts.grant():
            if isinstance(served, Placed):
                self.got(served, self.line[served.lease])
            else:
                assert not any(self.would_ever_fit(name, self.line[served[0]]) for name in self.offers)
                del self.line[served[0]]

    def would_ever_fit(self, name: str, asked: Needs) -> bool:
        """The same question, to books in which nothing else is."""
        alone = Accounts()
        alone.add(name, *self.offers[name])
        try:
            return isinstance(alone.place("alone", asked), Placed)
        except Unsatisfiable:
            return False

    @rule(name=st.sampled_from(NAMES), offer=hosts, limit=st.sampled_from([None, 1, 3]))
    def a_member_comes_or_comes_back(self, name: str, offer: Capabilities, limit: int | None) -> None:
        incarnation = next(self.numbers)
        void = self.accounts.add(name, incarnation, offer, limit)
        assert set(void) == {lease for lease, (_, placed) in self.held.items() if placed.node == name}
        self.held = {lease: held for lease, held in self.held.items() if lease not in void}
        self.offers[name] = (incarnation, offer, limit)
        self.serve()

    @rule(name=st.sampled_from(NAMES))
    def a_member_goes(self, name: str) -> None:
        void = self.accounts.remove(name)
        self.held = {lease: held for lease, held in self.held.items() if lease not in void}
        assert all(placed.node != name for _, placed in self.held.values())
        self.offers.pop(name, None)
        self.serve()

    @rule(name=st.sampled_from(NAMES), draining=st.booleans())
    def a_member_drains_or_takes_children_again(self, name: str, draining: bool) -> None:
        if name in self.offers:
            self.accounts.drain(name, draining=draining)
            self.serve()

    @rule(target=leases, asked=requests())
    def somebody_asks(self, asked: Needs) -> str:
        lease = f"lease-{next(self.numbers)}"
        possible = any(self.would_ever_fit(name, asked) for name in self.offers)
        if not possible:
            with pytest.raises(Unsatisfiable) as caught:
                self.accounts.place(lease, asked)
            assert all(name in str(caught.value) for name in self.offers)
            return lease
        answer = self.accounts.place(lease, asked)
        if isinstance(answer, Placed):
            assert not self.accounts.members[answer.node].draining
            self.got(answer, asked)
        else:
            self.line[lease] = asked
        return lease

    @rule(lease=leases)
    def asked_again_the_answer_is_the_same(self, lease: str) -> None:
        if lease in self.held:
            asked, placed = self.held[lease]
            assert self.accounts.place(lease, asked) == placed
        elif lease in self.line:
            assert isinstance(self.accounts.place(lease, self.line[lease]), Waiting)

    @rule(lease=consumes(leases))
    def somebody_gives_back_or_waits_no_longer(self, lease: str) -> None:
        self.accounts.release(lease)
        self.held.pop(lease, None)
        self.line.pop(lease, None)
        self.serve()

    @precondition(lambda self: self.held)
    @rule()
    def the_authority_starts_anew(self) -> None:
        """Members come first, and announce what lives there; those who wait ask again, in their order."""
        draining = [name for name, member in self.accounts.members.items() if member.draining]
        self.accounts = Accounts()
        for name, (incarnation, offer, limit) in self.offers.items():
            self.accounts.add(name, incarnation, offer, limit)
        for name in draining:
            self.accounts.drain(name)
        for asked, placed in self.held.values():
            assert not self.accounts.restore(placed.lease, asked, placed.node, placed.incarnation + 1000, placed.gpus)
            assert self.accounts.restore(placed.lease, asked, placed.node, placed.incarnation, placed.gpus)
        for lease, asked in list(self.line.items()):
            answer = self.accounts.place(lease, asked)
            if isinstance(answer, Placed):
                self.got(answer, asked)

    @precondition(lambda self: self.line)
    @rule()
    def all_who_wait_are_served_when_all_that_is_held_comes_back(self) -> None:
        for name in self.offers:
            self.accounts.drain(name, draining=False)
        while self.line:
            held, self.held = self.held, {}
            for lease in held:
                self.accounts.release(lease)
            waiting = len(self.line)
            self.serve()
            assert len(self.line) < waiting

    @invariant()
    def the_books_say_what_was_given(self) -> None:
        told = {lease for member in self.accounts.members.values() for lease in member.leases}
        assert told == set(self.held)

    @invariant()
    def nothing_is_given_out_twice(self) -> None:
        for name, (incarnation, offer, limit) in self.offers.items():
            here = [(asked, placed) for asked, placed in self.held.values() if placed.node == name]
            assert limit is None or len(here) <= limit
            assert math.fsum(asked.cpus for asked, _ in here) <= offer.cpus + 1e-6
            assert sum(asked.memory for asked, _ in here) <= offer.memory
            tokens = math.fsum(asked.resources.get("tokens", 0.0) for asked, _ in here)
            assert tokens <= offer.resources.get("tokens", 0.0) + 1e-6
            for asked, placed in here:
                assert placed.incarnation == incarnation
                assert asked.labels.items() <= offer.labels.items()
                assert len(set(placed.gpus)) == asked.gpu
                assert placed.environment["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, placed.gpus))
            for gpu in offer.gpus:
                holders = [asked for asked, placed in here if gpu.index in placed.gpus]
                assert len(holders) <= 1 or all(asked.share is not None for asked in holders)
                assert math.fsum(asked.share or 1.0 for asked in holders) <= 1 + 1e-6
                assert sum(asked.gpu_memory for asked in holders) <= gpu.memory
            assert {index for _, placed in here for index in placed.gpus} <= {gpu.index for gpu in offer.gpus}


Books.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
