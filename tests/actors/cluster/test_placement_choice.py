"""Which member is chosen, who comes first, and what is said where there is no place."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.actors.cluster.books import Placed
from palmette.actors.cluster.capabilities import Capabilities, Gpu
from palmette.actors.cluster.needs import Needs, needs
from palmette.actors.cluster.placement import Accounts, Unsatisfiable, Waiting


def host(gpus: int = 0, *, cpus: float = 8, gpu_memory: int = 16, **labels: str) -> Capabilities:
    return Capabilities(
        cpus=cpus,
        memory=64 << 30,
        gpus=tuple(Gpu(index, memory=gpu_memory) for index in range(gpus)),
        labels=labels,
    )


def accounts(**members: Capabilities) -> Accounts:
    made = Accounts()
    for name, capabilities in members.items():
        made.add(name, 1, capabilities)
    return made


def nodes(books: Accounts, count: int, asked: Needs) -> list[str]:
    """Where ``count`` children with the same needs go."""
    found: list[str] = []
    for number in range(count):
        answer = books.place(f"{asked} {number}", asked)
        assert isinstance(answer, Placed), answer
        found.append(answer.node)
    return found


def test_packing_fills_one_member_after_the_other() -> None:
    assert nodes(accounts(a=host(4), b=host(2)), 6, needs(gpu=1)) == ["b", "b", "a", "a", "a", "a"]


def test_spreading_takes_the_member_with_the_fewest_children() -> None:
    assert nodes(accounts(a=host(), b=host(), c=host()), 6, needs(cpus=1)) == ["a", "b", "c", "a", "b", "c"]
    assert nodes(accounts(a=host(2), b=host(2)), 4, needs(gpu=1, strategy="spread")) == ["a", "b", "a", "b"]


def test_children_that_are_packed_and_want_no_gpu_leave_gpu_hosts_alone() -> None:
    assert nodes(accounts(gpu=host(8), plain=host()), 8, needs(cpus=1, strategy="pack")) == ["plain"] * 8


def test_a_limit_on_children_holds_whatever_they_ask_for() -> None:
    books = Accounts()
    books.add("a", 1, host(), limit=2)
    assert nodes(books, 2, needs()) == ["a", "a"]
    answer = books.place("one more", needs())
    assert answer == Waiting(lease="one more", reason="nothing in particular is in use (a: 2 of 2 children live there)")


def test_children_share_a_gpu_only_with_those_that_say_so() -> None:
    books = accounts(a=host(2))
    first, second, third = (books.place(name, needs(gpu=1, share=0.5, gpu_memory=6)) for name in ("1", "2", "3"))
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert isinstance(third, Placed)
    assert (first.gpus, second.gpus, third.gpus) == ((0,), (0,), (1,))
    assert isinstance(books.place("whole", needs(gpu=1)), Waiting)
    books.release("whole")
    assert isinstance(books.place("too much memory", needs(gpu=1, share=0.1, gpu_memory=12)), Waiting)


def test_a_child_sees_its_gpus_and_no_other() -> None:
    books = accounts(a=host(4))
    trainer, judge = books.place("trainer", needs(gpu=2)), books.place("judge", needs(cpus=1))
    assert isinstance(trainer, Placed)
    assert isinstance(judge, Placed)
    assert trainer.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert judge.environment["CUDA_VISIBLE_DEVICES"] == ""


def test_what_no_member_offers_fails_at_once_and_says_what_each_lacks() -> None:
    books = accounts(a=host(1, zone="eu"), b=host(gpus=2, gpu_memory=1 << 30), c=host())
    with pytest.raises(Unsatisfiable) as caught:
        books.place("x", needs(gpu=1, gpu_memory="40GiB", memory="128GiB", zone="us", avoid="c", docker=True))
    assert str(caught.value) == (
        "nothing can ever satisfy gpu=1, gpu_memory=40GiB, memory=128GiB, docker=yes, zone=us, avoid=c: "
        "a has zone=eu, has no Docker daemon, has memory=64GiB, has gpu=0 with gpu_memory=40GiB; "
        "b has no label zone, has no Docker daemon, has memory=64GiB, has gpu=0 with gpu_memory=40GiB; "
        "c is to be avoided, has no label zone, has no Docker daemon, has memory=64GiB, has gpu=0"
    )


def test_a_pin_to_nobody_names_those_who_are_there() -> None:
    with pytest.raises(Unsatisfiable, match="no member 'c' to place on; there are a, b"):
        accounts(b=host(), a=host()).place("x", needs(node="c"))
    with pytest.raises(Unsatisfiable, match="there is no member; start one"):
        Accounts().place("x", needs())


def test_a_draining_member_takes_nobody_new_and_is_waited_for() -> None:
    books = accounts(a=host(1))
    books.drain("a")
    assert books.place("x", needs(gpu=1)) == Waiting(lease="x", reason="gpu=1 is in use (a: drains)")
    books.drain("a", draining=False)
    [served] = books.grant()
    assert isinstance(served, Placed)


def test_after_a_restart_nothing_is_impossible_until_all_members_are_back() -> None:
    books = Accounts(complete=False)
    books.add("a", 1, host())
    answer = books.place("x", needs(gpu=1))
    assert isinstance(answer, Waiting)
    assert answer.reason == "gpu=1 is not there; not all members are back since the head was restarted"
    books.place("y", needs(gpu=3))
    assert books.grant() == []
    books.add("b", 1, host(1))
    [served] = books.grant()
    assert isinstance(served, Placed)
    books.complete = True
    [refused] = books.grant()
    assert isinstance(refused, tuple)
    assert refused[0] == "y"


def test_a_member_says_what_of_it_is_in_use() -> None:
    books = accounts(a=host(2))
    books.place("whole", needs(gpu=1, cpus=2))
    books.place("half", needs(gpu=1, share=0.5, memory="4GiB"))
    assert books.members["a"].usage() == {"gpu": (1.5, 2.0), "cpus": (2.0, 8.0), "memory": (4 << 30, 64 << 30)}


def test_those_who_wait_for_a_member_that_goes_are_told() -> None:
    books = accounts(a=host(1), b=host())
    books.place("first", needs(gpu=1))
    books.place("second", needs(gpu=1))
    assert books.remove("a") == ("first",)
    [served] = books.grant()
    assert isinstance(served, tuple)
    assert served[0] == "second"
    assert str(served[1]) == "nothing can ever satisfy gpu=1: b has gpu=0"


def test_a_member_that_comes_back_under_its_incarnation_keeps_its_leases() -> None:
    books = accounts(a=host(1))
    books.place("x", needs(gpu=1))
    assert books.add("a", 1, host(2)) == ()
    assert books.add("a", 2, host(2)) == ("x",)


def test_a_request_for_much_is_not_passed_over_by_those_for_little() -> None:
    books = accounts(a=host(4), b=host(1))
    assert nodes(books, 3, needs(gpu=1)) == ["b", "a", "a"]
    assert isinstance(books.place("much", needs(gpu=4)), Waiting)
    # What is free on the one member that could ever do is kept; the other, and other kinds, are not.
    answer = books.place("little", needs(gpu=1))
    assert answer == Waiting(
        lease="little",
        reason="gpu=1 is in use (a: what is free is kept for others who came first; b: gpu: 0 free of 1)",
    )
    assert nodes(books, 1, needs(cpus=1, node="a")) == ["a"]
    books.release("gpu=1 0")
    [served] = books.grant()
    assert isinstance(served, Placed)
    assert (served.lease, served.node) == ("little", "b")


def test_what_an_earlier_request_does_not_lack_is_left_to_it() -> None:
    books = accounts(a=host(1, cpus=4))
    books.place("holder", needs(gpu=1))
    assert isinstance(books.place("first", needs(gpu=1, cpus=3)), Waiting)
    assert isinstance(books.place("one too many", needs(cpus=2)), Waiting)
    assert nodes(books, 1, needs(cpus=1)) == ["a"]
    books.release("holder")
    [served] = books.grant()
    assert isinstance(served, Placed)
    assert served.lease == "first"


@given(seed=st.integers(0, 10_000), much=st.integers(2, 4), shared=st.booleans())
def test_whoever_waits_is_served_when_those_before_have_ended_whatever_comes_after(
    seed: int, much: int, shared: bool
) -> None:
    """An adversary asks for a little at every step; each child lives for at most ``life`` steps."""
    rng, life = random.Random(seed), 6
    books = accounts(a=host(4, cpus=4), b=host(4, cpus=2), c=host(1))
    alive: deque[tuple[int, str]] = deque()
    asked_at: int | None = None
    for step in range(60):
        while alive and alive[0][0] <= step:
            books.release(alive.popleft()[1])
            for served in books.grant():
                assert isinstance(served, Placed)
                if served.lease == "much":
                    return
                alive.append((step + life, served.lease))
        if step == 15:
            asked_at = step
            if isinstance(books.place("much", needs(gpu=much, cpus=2)), Placed):
                return
        # All that were there when it asked are gone by now, and so are those that overtook it without harm.
        assert asked_at is None or step <= asked_at + 2 * life
        for number in range(3):
            little = needs(gpu=rng.randint(0, 1), cpus=rng.choice([0, 1]))
            if shared and little.gpu:
                little = needs(gpu=1, share=0.25, cpus=little.cpus)
            name = f"{step} {number}"
            if isinstance(books.place(name, little), Placed):
                alive.append((step + life, name))
