"""The generator: a schedule from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

from differential.schedules import (
    During,
    Dynamic,
    End,
    Exit,
    Kind,
    Operation,
    Order,
    Refusal,
    Refuse,
    Schedule,
    Span,
    Static,
    Together,
    Wait,
    Worker,
    supervisors_in,
)

from palmette.supervisors.policy import Restart
from palmette.supervisors.supervisor import AutoShutdown, Strategy

PATIENT = 0.02
"""Schedules that wait out their intensity window: for the reference that is real time."""
NOBODY = "nobody"

_RESTARTS: tuple[Restart, ...] = get_args(Restart)
_STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
_AUTO: tuple[AutoShutdown, ...] = ("never", "never", "any_significant", "all_significant")
_ENDS: tuple[End, ...] = ("normal", "shutdown", "shutdown_x", "crash", "crash", "crash", "kill")


def draw(seed: int) -> Schedule:
    """The schedule of ``seed``: always the same."""
    return _Draw(random.Random(f"schedule/{seed}")).schedule()


class _Draw:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.made = 0
        self.names: dict[str, list[str]] = {}
        """Children by supervisor, past ones included."""

    def schedule(self) -> Schedule:
        rng = self.rng
        root = self.dynamic("root", "never") if rng.random() < 0.12 else self.static("root", "never", levels=2)
        workers = [name for names in self.names.values() for name in names if name.startswith("w")]
        refusals: list[Refuse] = []
        if workers and rng.random() < 0.04:
            refusals.append(Refuse(rng.choice(workers), 1))
        if workers and rng.random() < 0.15:
            some = rng.sample(workers, min(len(workers), rng.randint(1, 2)))
            refusals += [Refuse(name, rng.randint(1, 2), "decline") for name in some]
        supervisors = supervisors_in(root)
        operations: list[Operation] = []
        for _ in range(rng.randint(1, 14)):
            operations += self.operation(supervisors)
        if rng.random() < PATIENT:
            operations.insert(rng.randrange(len(operations) + 1), Wait())
        return Schedule(root=root, refusals=tuple(refusals), operations=tuple(operations))

    # --- trees -----------------------------------------------------------------------------------------------------

    def name(self, prefix: str, parent: str) -> str:
        self.made += 1
        name = f"{prefix}{self.made}"
        self.names.setdefault(parent, []).append(name)
        return name

    def intensity(self) -> int:
        return self.rng.choice((0, 1, 1, 2, 3, 3, 5, 10))

    def lot(self, auto_shutdown: AutoShutdown, *, insist: bool = False) -> tuple[Restart, bool]:
        """A restart type, and whether the child is significant; ``insist`` forgets to ask whether it may be."""
        restart = self.rng.choice(_RESTARTS)
        may = restart != "permanent" and (auto_shutdown != "never" or insist)
        return restart, may and self.rng.random() < 0.5

    def static(self, name: str, auto_of_parent: AutoShutdown, *, levels: int) -> Static:
        rng = self.rng
        restart, significant = self.lot(auto_of_parent)
        auto = rng.choice(_AUTO)
        children: list[Worker | Static | Dynamic] = []
        for _ in range(rng.randint(1, 5)):
            kind = rng.random()
            if levels > 1 and kind < 0.15:
                children.append(self.static(self.name("s", name), auto, levels=levels - 1))
            elif levels > 1 and kind < 0.25:
                children.append(self.dynamic(self.name("d", name), auto))
            else:
                children.append(self.worker(self.name("w", name), auto))
        return Static(
            name=name,
            strategy=rng.choice(_STRATEGIES),
            intensity=self.intensity(),
            auto_shutdown=auto,
            restart=restart,
            shutdown=rng.choice(("infinity", "infinity", "long")),
            children=tuple(children),
            significant=significant,
        )

    def dynamic(self, name: str, auto_of_parent: AutoShutdown) -> Dynamic:
        restart, significant = self.lot(auto_of_parent)
        self.names.setdefault(name, [])
        return Dynamic(
            name=name,
            intensity=self.intensity(),
            restart=restart,
            shutdown="infinity",
            template=self.worker("template", "never"),
            significant=significant,
        )

    def worker(self, name: str, auto: AutoShutdown, *, insist: bool = False) -> Worker:
        rng = self.rng
        restart, significant = self.lot(auto, insist=insist)
        on_stop = rng.choice(("obey", "obey", "tidy", "tidy", "stubborn", "crash"))
        spans: Sequence[Span] = ("brutal", "long", "infinity")
        shutdown = rng.choice(("short", "brutal") if on_stop == "stubborn" else spans)
        return Worker(name=name, restart=restart, shutdown=shutdown, on_stop=on_stop, significant=significant)

    # --- operations --------------------------------------------------------------------------------------------------

    def operation(self, supervisors: list[Static | Dynamic]) -> list[Operation]:
        """One operation, or two that belong together."""
        rng = self.rng
        supervisor = rng.choice(supervisors)
        workers = [name for name in self.names[supervisor.name] if name.startswith("w")]
        if not workers:
            return [self.order(supervisor)]
        match rng.choices(("exit", "refuse", "order", "together", "during", "end"), (38, 14, 28, 10, 14, 4))[0]:
            case "exit":
                return [Exit(rng.choice(workers), rng.choice(_ENDS))]
            case "refuse":
                # A start that is refused shows when something is started: often the very child, or one by an order.
                name, how = rng.choice(workers), self.how(supervisor)
                refuse = Refuse(name, rng.randint(1, 4 if how == "fail" else 2), how)
                if how == "decline" and rng.random() < 0.3:
                    return [refuse, Order("terminate_child", supervisor.name, name),
                            Order("restart_child", supervisor.name, name)]  # fmt: skip
                return [refuse, Exit(name if rng.random() < 0.5 else rng.choice(workers), rng.choice(_ENDS))]
            case "order":
                order = self.order(supervisor)
                started = order.spec.name if order.spec is not None else order.name
                if order.kind in ("start_child", "start_dynamic") and rng.random() < 0.3:
                    return [Refuse(started, 1, "decline"), order]
                return [order]
            case "together":
                reason = rng.choice(_ENDS)
                # A killed supervisor's children are not compared, and that for one supervisor at a time.
                some = workers if reason == "kill" else self.names[supervisor.name]
                names = rng.sample(some, min(len(some), rng.randint(2, 3)))
                return [Together(supervisor.name, tuple(names), reason)]
            case "during":
                name = rng.choice(workers)
                reason = rng.choice(("crash", "kill", "normal"))
                # Declined, the start of a supervisor below another goes on, and the two are at work at the same time.
                how = self.how(supervisor) if supervisor.name == "root" else "fail"
                # What is down with its group is, with us, a significant child that still lives: see the table.
                if rng.random() < 0.4 and getattr(supervisor, "auto_shutdown", "never") != "all_significant":
                    also = Exit(rng.choice(workers), rng.choice(_ENDS))
                    return [During(name, reason, also, how)]
                order = self.order(supervisor, about=name if rng.random() < 0.5 else None)
                return [During(name, reason, order, how)]
            case _ if len(supervisors) > 1 and rng.random() < 0.9:
                return [Exit(rng.choice(supervisors[1:]).name, rng.choice(_ENDS))]
            case _:
                return [Exit("root", rng.choice(_ENDS))]

    def how(self, supervisor: Static | Dynamic) -> Refusal:
        """How a child of ``supervisor`` refuses a restart. OTP's dynamic supervisors cannot take a decline there."""
        return "decline" if isinstance(supervisor, Static) and self.rng.random() < 0.35 else "fail"

    def order(self, supervisor: Static | Dynamic, *, about: str | None = None) -> Order:
        rng, name = self.rng, supervisor.name
        if about is None:
            about = rng.choice(self.names[name]) if self.names[name] and rng.random() < 0.9 else NOBODY
        if isinstance(supervisor, Dynamic):
            kind: Kind = rng.choice(
                ("start_dynamic", "start_dynamic", "terminate_dynamic", "which_dynamic", "count_dynamic")
            )
            match kind:
                case "start_dynamic":
                    return Order(kind, name, self.name("w", name))
                case "terminate_dynamic":
                    return Order(kind, name, about)
                case _:
                    return Order(kind, name)
        kind = rng.choice(
            ("start_child", "terminate_child", "terminate_child", "restart_child", "restart_child", "delete_child",
             "which_children", "count_children")
        )  # fmt: skip
        match kind:
            case "start_child":
                known = [one for one in self.names[name] if one.startswith("w")]
                again = known and rng.random() < 0.4
                who = rng.choice(known) if again else self.name("w", name)
                return Order(kind, name, spec=self.worker(who, supervisor.auto_shutdown, insist=rng.random() < 0.1))
            case "which_children" | "count_children":
                return Order(kind, name)
            case _:
                return Order(kind, name, about)
