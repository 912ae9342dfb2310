"""A tree that makes no sense is refused before anything starts, with the value and the remedy."""

from __future__ import annotations

import pytest
from supervisors_support import Worker, workers

from palmette.actors import Actor, needs
from palmette.supervisors import Backoff, BadSpec, ChildSpec, DynamicSupervisor, Supervisor, child
from palmette.supervisors.spec import OPTIONS


class Greeter(Actor):
    def __init__(self, greeting: str, *, loud: bool = False) -> None:
        self.greeting = greeting.upper() if loud else greeting


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "a b"}, "a name is letters, digits and any of"),
        ({"name": ""}, "a name is letters, digits"),
        ({"name": "a/b"}, "a name is letters, digits"),
        ({"restart": "always"}, "restart is permanent, transient or temporary, not 'always'"),
        ({"isolation": "inline", "on": needs(gpu=1)}, "on=gpu=1 places a process; leave isolation out"),
        ({"isolation": "thread"}, "isolation is inline or process, not 'thread'"),
        ({"shutdown": "slow"}, "shutdown is seconds, 'brutal' or 'infinity', not 'slow'"),
        ({"shutdown": 0}, "shutdown is more than 0 seconds, not 0; or 'brutal'"),
        ({"shutdown": float("nan")}, "shutdown is more than 0 seconds, not nan"),
        ({"significant": True}, "a permanent child never ends by itself"),
        ({"overflow": "drop"}, "overflow is block, reject or drop_oldest, not 'drop'"),
        ({"mailbox": 0}, "a mailbox holds at least one message, not 0"),
        ({"start_timeout": 0}, "start_timeout is more than 0 seconds, not 0"),
        ({"colour": "green"}, "got an unexpected keyword argument 'colour'; known options of a child are"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
def test_a_child_that_makes_no_sense_is_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadSpec, match=f"child .*{complaint}"):
        child(Worker, **{"name": "a", **options})  # pyright: ignore[reportArgumentType]


def test_a_child_that_says_what_it_needs_gets_a_process() -> None:
    spec = child(Worker, name="a", on=needs(gpu=1, zone="eu"))
    assert spec.isolation == "process"
    assert "process on gpu=1, zone=eu" in repr(spec)
    assert Supervisor.spec(name="s", on=needs(cpus=1)).isolation == "process"
    with pytest.raises(BadSpec, match="leave isolation out"):
        Supervisor.spec(name="s", isolation="inline", on=needs(cpus=1))


def test_arguments_are_checked_against_the_actors_initializer() -> None:
    assert child(Greeter, "hello", loud=True, name="g").kwargs == {"loud": True}
    with pytest.raises(BadSpec, match="missing a required argument: 'greeting'"):
        child(Greeter, name="g")
    with pytest.raises(BadSpec, match="too many positional arguments"):
        child(Greeter, "hello", "world", name="g")


def test_the_list_of_options_is_that_of_the_spec() -> None:
    for option in ("restart", "backoff", "mailbox", "isolation", "rules"):
        assert option in OPTIONS
    assert "kwargs" not in OPTIONS


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "all"}, "strategy is one_for_one, one_for_all or rest_for_one, not 'all'"),
        ({"max_restarts": -1}, "max_restarts >= 0 within max_seconds > 0, got -1 within 5.0"),
        ({"max_seconds": 0}, "max_restarts >= 0 within max_seconds > 0, got 3 within 0"),
        ({"children": workers("aba")}, "two children cannot share a name: a"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_supervisor_that_makes_no_sense_is_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadSpec, match=complaint):
        Supervisor.spec(**options)  # pyright: ignore[reportArgumentType]


def test_supervisors_have_all_the_time_to_stop_and_workers_five_seconds() -> None:
    assert Supervisor.spec().shutdown == DynamicSupervisor.spec(name="d").shutdown == "infinity"
    assert child(Worker, name="w").shutdown == 5.0


def test_a_spec_is_a_value() -> None:
    one, two = (child(Worker, name="a", backoff=Backoff(min=1)) for _ in range(2))
    assert one == two
    assert isinstance(one, ChildSpec)
    with pytest.raises(AttributeError):
        one.name = "b"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_spec_shows_no_argument_when_it_is_printed() -> None:
    """A journal's URL may hold a password, and specs end up in logs and tracebacks."""

    class Keeper(Actor):
        def __init__(self, url: str) -> None:
            self.url = url

    assert "secret" not in repr(child(Keeper, "postgresql://me:secret@localhost/db", name="keeper"))
