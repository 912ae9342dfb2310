"""What both sides run: a tree of supervisors and workers, and a list of orders; drawn from a seed.

A schedule is plain data. :meth:`Schedule.erlang` writes it as the term that the reference reads; ``palmette_side`` runs
it as it is.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import AutoShutdown, Strategy

Span = Literal["brutal", "short", "long", "infinity"]
"""Shutdown: ``short`` is for children that will not obey (and so are killed), ``long`` for those that will."""
OnStop = Literal["obey", "tidy", "stubborn", "crash"]
"""What a worker does when told to stop: end, without or with a hook; ignore it; crash."""
Refusal = Literal["fail", "decline"]
"""How a child refuses to start; ``decline`` is OTP's ``ignore``."""
End = Literal["normal", "shutdown", "shutdown_x", "crash", "kill"]
Kind = Literal[
    "start_child",
    "start_dynamic",
    "terminate_child",
    "terminate_dynamic",
    "restart_child",
    "delete_child",
    "which_children",
    "which_dynamic",
    "count_children",
    "count_dynamic",
]

NEVER = 1_000_000
"""An intensity window that no schedule outlives, in seconds."""
WINDOW = 4
"""An intensity window that a schedule waits out, in seconds (real ones for the reference)."""

ENDS: dict[End, str] = {
    "normal": "normal",
    "shutdown": "shutdown",
    "shutdown_x": "{shutdown,x}",
    "crash": "boom",
    "kill": "kill",
}


class Worker(msgspec.Struct, frozen=True, tag=True):
    """A child without children."""

    name: str
    restart: Restart
    shutdown: Span
    on_stop: OnStop
    significant: bool = False

    def erlang(self, period: int) -> str:
        significant = str(self.significant).lower()
        return f"{{worker,{self.name},{self.restart},{self.shutdown},{significant},{self.on_stop}}}"


class Static(msgspec.Struct, frozen=True, tag=True):
    """A supervisor with named children."""

    name: str
    strategy: Strategy
    intensity: int
    auto_shutdown: AutoShutdown
    restart: Restart
    shutdown: Span
    children: tuple[Worker | Static | Dynamic, ...]
    significant: bool = False

    def erlang(self, period: int) -> str:
        children = ",".join(one.erlang(period) for one in self.children)
        return (
            f"{{supervisor,{self.name},{self.strategy},{self.intensity},{period},{self.auto_shutdown},"
            f"{self.restart},{self.shutdown},{str(self.significant).lower()},[{children}]}}"
        )


class Dynamic(msgspec.Struct, frozen=True, tag=True):
    """``simple_one_for_one``: every child is made from ``template``, whose name means nothing."""

    name: str
    intensity: int
    restart: Restart
    shutdown: Span
    template: Worker
    significant: bool = False

    def erlang(self, period: int) -> str:
        return (
            f"{{dynamic,{self.name},{self.intensity},{period},{self.restart},{self.shutdown},"
            f"{str(self.significant).lower()},{self.template.erlang(period)}}}"
        )


Node = Worker | Static | Dynamic


class Order(msgspec.Struct, frozen=True, tag=True):
    """One administration call to ``supervisor``, about ``name``."""

    kind: Kind
    supervisor: str
    name: str = ""
    spec: Worker | None = None

    def erlang(self) -> str:
        about = self.spec.erlang(0) if self.spec is not None else self.name
        return f"{{{self.kind},{self.supervisor}{',' if about else ''}{about}}}"


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """The next ``times`` starts of ``name`` fail, or decline."""

    name: str
    times: int
    how: Refusal = "fail"

    def erlang(self) -> str:
        return f"{{refuse,{self.name},{{{self.times},{self.how}}}}}"


class Exit(msgspec.Struct, frozen=True, tag=True):
    """``name`` ends by itself."""

    name: str
    reason: End

    def erlang(self) -> str:
        return f"{{exit,{self.name},{ENDS[self.reason]}}}"


class Together(msgspec.Struct, frozen=True, tag=True):
    """``names`` end in this order, before their supervisor learns of any of it."""

    supervisor: str
    names: tuple[str, ...]
    reason: End

    def erlang(self) -> str:
        return f"{{together,{self.supervisor},[{','.join(self.names)}],{ENDS[self.reason]}}}"


class During(msgspec.Struct, frozen=True, tag=True):
    """``name`` ends; its next start fails (or declines), and while that start is under way ``also`` reaches the
    supervisor: an order, or the end of another child."""

    name: str
    reason: End
    also: Order | Exit
    how: Refusal = "fail"

    def erlang(self) -> str:
        return f"{{during,{self.name},{ENDS[self.reason]},{self.how},{self.also.erlang()}}}"


class Wait(msgspec.Struct, frozen=True, tag=True):
    """The intensity window passes."""

    def erlang(self) -> str:
        return "wait"


Operation = Order | Refuse | Exit | Together | During | Wait


class Schedule(msgspec.Struct, frozen=True):
    """A tree, the starts that fail or decline while it is brought up, and what is done to it."""

    root: Static | Dynamic
    refusals: tuple[Refuse, ...]
    operations: tuple[Operation, ...]

    @property
    def period(self) -> int:
        """Seconds of every intensity window in it."""
        return WINDOW if any(isinstance(one, Wait) for one in self.operations) else NEVER

    def erlang(self, number: int) -> str:
        refusals = ",".join(f"{{{one.name},{{{one.times},{one.how}}}}}" for one in self.refusals)
        operations = ",".join(one.erlang() for one in self.operations)
        return f"{{{number},{self.period},[{refusals}],{self.root.erlang(self.period)},[{operations}]}}.\n"

    def shown(self) -> str:
        """For people: the tree indented, then the orders, numbered as in the traces."""
        lines = [f"at first: {one!r}" for one in self.refusals]
        lines += _tree(self.root, "")
        lines += [f"op {number}: {one!r}" for number, one in enumerate(self.operations)]
        return "\n".join(lines)


def _tree(node: Node, indent: str) -> list[str]:
    if isinstance(node, Static):
        plain = msgspec.structs.replace(node, children=())
        return [f"{indent}{plain!r}", *(line for one in node.children for line in _tree(one, indent + "    "))]
    return [f"{indent}{node!r}"]


def supervisors_in(node: Node) -> list[Static | Dynamic]:
    """``node`` and what is below it, without the workers."""
    if isinstance(node, Worker):
        return []
    below = node.children if isinstance(node, Static) else ()
    return [node, *(found for one in below for found in supervisors_in(one))]
