"""A schedule on palmette, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import msgspec
from differential.coverage import Coverage
from differential.schedules import (
    NEVER,
    Dynamic,
    End,
    Exit,
    Node,
    Operation,
    Order,
    Refuse,
    Schedule,
    Span,
    Static,
    Together,
    Wait,
    Worker,
    supervisors_in,
)
from differential.workers import HookedWorker, TracedWorker, World

from palmette.actors import Actor, ActorDied, System, simulation
from palmette.actors.cell import Cell
from palmette.actors.exits import Crashed, Killed, MaxRestarts, Normal, Reason, Shutdown
from palmette.actors.simulation import SimulatedLoop, SimulatedSystem
from palmette.actors.slot import Slot
from palmette.actors.starting import StartOptions
from palmette.supervisors import (
    ChildExists,
    ChildInfo,
    ChildSpec,
    DynamicSupervisor,
    NoSuchChild,
    StartDeclined,
    StartRefused,
    Supervisor,
    child,
)

SETTLE = 20.0
"""Virtual seconds after which nothing moves any more: less than a start may take, and far less than a window."""
SPANS: dict[Span, float | str] = {"brutal": "brutal", "short": 0.01, "long": 5.0, "infinity": "infinity"}


def class_of(reason: Reason) -> str:
    """As in the reference. A spent budget is ``shutdown`` there."""
    match reason:
        case Normal():
            return "normal"
        case Shutdown() | MaxRestarts():
            return "shutdown"
        case Killed():
            return "killed"
        case _:
            return "crash"


def trace(schedule: Schedule, *, seed: int = 0, coverage: Coverage | None = None) -> list[str]:
    """Run ``schedule`` and return what happened."""
    counts: Coverage = Counter() if coverage is None else coverage
    return simulation.run(lambda: _run(schedule, counts), seed=seed, max_seconds=1e12).value


async def _run(schedule: Schedule, coverage: Coverage) -> list[str]:
    world = World(schedule, coverage)

    class TracedSystem(SimulatedSystem):
        def __init__(self, *, name: str = "palmette", kill_grace: float = 1.0) -> None:
            super().__init__(name=name, kill_grace=kill_grace)
            self.coming_up: set[str] = set()

        async def start_actor(
            self,
            slot: Slot,
            parent: Cell | None,
            cls: type[Actor],
            args: tuple[object, ...],
            kwargs: dict[str, object],
            options: StartOptions,
        ) -> Cell:
            if parent is not None and not issubclass(cls, TracedWorker):
                world.starting(slot.name)
            self.coming_up.add(slot.path)
            try:
                return await super().start_actor(slot, parent, cls, args, kwargs, options)
            finally:
                self.coming_up.discard(slot.path)

        def record_exit(self, slot: Slot, kind: str, reason: Reason) -> None:
            super().record_exit(slot, kind, reason)
            if slot.path.startswith("/root") and slot.path not in self.coming_up:
                world.trace.append(f"stop {slot.name}#{world.starts[slot.name]} {class_of(reason)}")

    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    loop.system_class = TracedSystem
    async with System.start(DynamicSupervisor.spec(name="harness")) as system:
        await _Run(system, world, schedule).all()
    return world.trace


class _Run:
    def __init__(self, system: System, world: World, schedule: Schedule) -> None:
        self.system = system
        self.world = world
        self.schedule = schedule
        self.coverage = world.coverage
        self.paths = {"root": "/root"}
        self.lots = world.lots
        self.dynamic: dict[str, Dynamic] = {}

    async def all(self) -> None:
        harness = self.system.ref_at("/", DynamicSupervisor)
        root = msgspec.structs.replace(self.spec(self.schedule.root), restart="temporary", significant=False, rules={})
        try:
            await harness.call(DynamicSupervisor.start_child, root)
        except StartRefused:
            self.world.trace.append("=> refused")
            return
        self.world.trace.append("=> ok")
        await asyncio.sleep(SETTLE)
        for number, operation in enumerate(self.schedule.operations):
            if not self.is_alive("root"):
                return
            self.world.trace.append(f"op {number}")
            await self.perform(operation)
            await asyncio.sleep(SETTLE)
        if self.is_alive("root"):
            self.world.trace.append("end")
            await harness.call(DynamicSupervisor.terminate_child, "root")

    # --- specs -----------------------------------------------------------------------------------------------------

    def spec(self, node: Node, parent: str | None = None) -> ChildSpec[Actor]:
        if parent is not None:
            self.paths[node.name] = f"{self.paths[parent]}/{node.name}"
        if isinstance(node, Worker):
            spec = cast(
                "ChildSpec[Actor]",
                child(
                    TracedWorker if node.on_stop == "obey" else HookedWorker,
                    self.world,
                    node.on_stop,
                    name=node.name,
                    shutdown=SPANS[node.shutdown],  # pyright: ignore[reportArgumentType]
                ),
            )
        elif isinstance(node, Static):
            for one in node.children:
                self.lots[one.name] = (node.strategy, one.restart)
            spec = Supervisor.spec(
                children=[self.spec(one, node.name) for one in node.children],
                name=node.name,
                strategy=node.strategy,
                max_restarts=node.intensity,
                max_seconds=NEVER,
                auto_shutdown=node.auto_shutdown,
                shutdown=SPANS[node.shutdown],  # pyright: ignore[reportArgumentType]
            )
        else:
            self.dynamic[node.name] = node
            spec = DynamicSupervisor.spec(name=node.name, max_restarts=node.intensity, max_seconds=NEVER)
        # OTP's behaviour where ours differs on purpose: see the table in test_against_otp.
        return msgspec.structs.replace(
            cast("ChildSpec[Actor]", spec),
            restart=node.restart,
            significant=node.significant,
            resurrect=True,
            rules={"max_restarts": "stop"} if node.restart == "transient" else {},
        )

    # --- operations --------------------------------------------------------------------------------------------------

    def is_alive(self, name: str) -> bool:
        path = self.paths.get(name)
        target = None if path is None else self.system.target_at(path)
        # A supervisor is there from its start on, a worker from the end of its start: as in the reference.
        alive = target is not None and not (name.startswith("w") and target.state == "starting")
        if not alive and name != "root":
            self.world.trace.append(f"{name} absent")
        return alive

    async def perform(self, operation: Operation) -> None:
        world = self.world
        match operation:
            case Wait():
                await asyncio.sleep(2 * NEVER)
            case Refuse():
                world.refusals[operation.name] = (operation.times, operation.how)
            case Exit():
                await self.end(operation.name, operation.reason)
            case Together():
                if self.is_alive(operation.supervisor):
                    supervisor = self.system.ref_at(self.paths[operation.supervisor], Actor)
                    supervisor.suspend()
                    for name in operation.names:
                        await self.end(name, operation.reason)
                        await asyncio.sleep(SETTLE)
                    supervisor.resume()
            case Order():
                if self.is_alive(operation.supervisor):
                    world.trace.append(f"=> {await self.answer(operation)}")
            case _:
                if not self.is_alive(operation.name):
                    return
                world.gate = (operation.name, operation.how)
                world.gated.clear()
                world.opened.clear()
                await self.end(operation.name, operation.reason)
                await asyncio.sleep(SETTLE)
                if not world.gated.is_set():
                    world.gate = None
                    world.trace.append("=> no restart")
                    return
                also = asyncio.create_task(self.also(operation.also))
                await asyncio.sleep(SETTLE)  # the order now waits in the mailbox
                world.opened.set()
                await asyncio.sleep(SETTLE)
                answer = await also
                if answer is not None:
                    world.trace.append(f"=> {answer}")

    async def end(self, name: str, reason: End) -> None:
        if not self.is_alive(name):
            return
        self.coverage[("end", *self.lots.get(name, ("?", "?")), reason)] += 1
        path = self.paths[name]
        ref = self.system.ref_at(path, TracedWorker)
        target = self.system.target_at(path)
        assert target is not None
        ended = target.ended()
        if reason == "kill":
            ref.kill()
        elif name.startswith("w"):
            ref.cast(TracedWorker.end, reason)
        else:
            reasons: dict[str, Reason] = {
                "normal": Normal(),
                "shutdown": Shutdown(),
                "shutdown_x": Shutdown("x"),
                "crash": Crashed(error="ToldTo", text=""),
            }
            await ref.terminate(reasons[reason], timeout=SETTLE)
        await ended

    async def also(self, what: Order | Exit) -> str | None:
        return await self.answer(what) if isinstance(what, Order) else await self.end(what.name, what.reason)

    async def answer(self, order: Order) -> str:
        """Make the call; its result in the words of the reference."""
        started = order.spec.name if order.spec is not None else order.name
        if order.kind in ("start_child", "start_dynamic", "restart_child"):
            self.world.ordered = (started, order.kind)
        try:
            answer = await self.call(order)
        except ChildExists:
            answer = "exists"
        except NoSuchChild:
            answer = "not found"
        except StartDeclined:
            answer = "declined"
        except StartRefused:
            answer = "refused"
        except ActorDied:
            answer = "gone"
        self.world.ordered = None
        counted = answer if order.kind.split("_")[0] not in ("which", "count") or answer == "gone" else "listed"
        self.coverage[("order", order.kind, counted)] += 1
        return answer

    async def call(self, order: Order) -> str:
        path, name = self.paths[order.supervisor], order.name
        static = self.system.ref_at(path, Supervisor)
        dynamic = self.system.ref_at(path, DynamicSupervisor)
        match order.kind:
            case "start_child":
                assert order.spec is not None
                lots = dict(self.lots)
                self.lots[order.spec.name] = (self.strategy(order.supervisor), order.spec.restart)
                try:
                    await static.call(Supervisor.start_child, self.spec(order.spec, order.supervisor))
                except ChildExists:
                    self.lots.update(lots)  # the child of that name is the one that it was
                    raise
            case "start_dynamic":
                template = self.dynamic[order.supervisor].template
                self.lots[name] = ("dynamic", template.restart)
                worker = self.spec(msgspec.structs.replace(template, name=name), order.supervisor)
                await dynamic.call(DynamicSupervisor.start_child, worker)
            case "terminate_child":
                await static.call(Supervisor.terminate_child, name)
            case "terminate_dynamic":
                await dynamic.call(DynamicSupervisor.terminate_child, name)
            case "restart_child":
                await static.call(Supervisor.restart_child, name)
            case "delete_child":
                await static.call(Supervisor.delete_child, name)
            case "which_children":
                infos = await static.call(Supervisor.which_children)
                return " ".join(f"{info.name}:{_state(info)}" for info in infos)
            case "which_dynamic":
                infos = await dynamic.call(DynamicSupervisor.which_children)
                return " ".join(sorted(f"{info.name}:up" if _state(info) == "up" else "?:restarting" for info in infos))
            case "count_children":
                counts = await static.call(Supervisor.count_children)
                return f"{counts.specs} {counts.active} {counts.supervisors} {counts.workers}"
            case "count_dynamic":
                counts = await dynamic.call(DynamicSupervisor.count_children)
                return f"{counts.active} {counts.supervisors} {counts.workers}"
        return "ok"

    def strategy(self, name: str) -> str:
        return next(
            one.strategy for one in supervisors_in(self.schedule.root) if one.name == name and isinstance(one, Static)
        )


def _state(info: ChildInfo) -> str:
    return {"running": "up", "restarting": "restarting"}.get(info.state, "down")
