"""Code that is not the same on both sides of a link is a failed start, and its text says what differs."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from node_actors import Worker

from palmette.actors import StartFailed, System, wire
from palmette.actors.fingerprint import Build, interface_of, this_build
from palmette.actors.housing import Host
from palmette.supervisors import Supervisor, child

HERE = """
from __future__ import annotations
import msgspec
from palmette.actors import Actor, endpoint

class Order(msgspec.Struct):
    item: str
    count: int

class Tick(msgspec.Struct):
    at: float

class Counter(Actor):
    def __init__(self, start: int = 0) -> None: ...

    @endpoint
    async def add(self, step: int) -> int: ...

    @endpoint
    async def take(self, orders: list[Order]) -> None: ...
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that this process has imported, and that others will."""
    (tmp_path / "changing_shop.py").write_text(HERE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    yield importlib.import_module("changing_shop")
    del sys.modules["changing_shop"]


def rewrite(module: ModuleType, text: str) -> None:
    """Change the code of a module that is imported here already."""
    Path(str(module.__file__)).write_text(text)


async def failure(spec: object) -> str:
    with pytest.raises(StartFailed) as failed:
        async with System.start(Supervisor.spec(children=[spec])):  # type: ignore[list-item] # pyright: ignore
            pass
    return str(failed.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("step: int", "step: float", "endpoint `add(step: int) -> int` here, `add(step: float) -> int` there."),
        (
            "async def take",
            "async def give",
            "endpoint `give(orders: list[Order]) -> None` there only; endpoint `take(",
        ),
        (
            "count: int",
            "count: str",
            "struct `Order(item: str, count: int)` here, `Order(item: str, count: str)` there.",
        ),
        ("at: float", "at: int", "struct `Tick(at: float)` here, `Tick(at: int)` there."),
        ("start: int = 0", "start: int", "class `Counter(start: int = ...)` here, `Counter(start: int)` there."),
    ],
)
async def test_a_class_that_the_node_knows_otherwise_does_not_start(
    shop: ModuleType, old: str, new: str, said: str
) -> None:
    rewrite(shop, HERE.replace(old, new))
    text = await failure(child(shop.Counter, name="counter", isolation="process"))
    assert text.startswith(
        "/counter could not start: NodeError: changing_shop.Counter is not the same in the program and"
    )
    assert said in text


async def test_what_makes_no_difference_to_others_is_none(shop: ModuleType) -> None:
    changed = HERE.replace("class Tick", "class Spare(msgspec.Struct):\n    x: int\n\nclass Tick").replace(
        "...", "pass"
    )
    rewrite(shop, changed)
    async with System.start(
        Supervisor.spec(children=[child(shop.Counter, name="counter", isolation="process")])
    ) as system:
        assert system.whereis("counter", shop.Counter).is_alive()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            Build("9.9", "3.99.1", this_build().frames),
            f"palmette 9.9 (Python 3.99.1, frames {this_build().frames}) there",
        ),
        (msgspec.structs.replace(this_build(), frames="0"), "frames 0) there"),
        (None, "an older palmette there"),
    ],
)
async def test_a_process_of_another_build_is_not_let_in(
    monkeypatch: pytest.MonkeyPatch, build: Build | None, said: str
) -> None:
    def call(_: Host, order: wire.Order) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(order.socket)
            hello = wire.Hello(order.node, order.token, 2**22 + 1, build)
            connection.sendall(b"".join(wire.encode_frame(hello, 0)))

    monkeypatch.setattr(Host, "order", call)
    text = await failure(child(Worker, name="other", isolation="process"))
    assert f"NodeError: its process runs other code: {this_build()} here, " in text
    assert f"{said}; install the same version on both" in text


def test_an_interface_is_looked_at_once_per_class() -> None:
    assert interface_of(Worker) is interface_of(Worker)
    assert interface_of(Worker)["endpoint price"] == "price(value: Decimal) -> None", "a type for type checkers only"
    assert interface_of(Worker)["endpoint spread"] == "spread(*numbers: int) -> int"
    assert interface_of(Worker)["class"] == "Worker(tag: str = ..., point: Point | None = ...)"
