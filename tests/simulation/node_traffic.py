"""The program that simulated nodes are tried on: clients, here and in nodes, talk to servers in nodes; watchers watch.

What is sent is numbered by its sender, and everybody writes what happened to them into a ledger. In a simulation there
is one, as all nodes share this process, and it knows more than any actor could: what each incarnation was given, also
of those that were killed. On real nodes each process has its own, and only what ``main`` returns can be compared.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import msgspec

from palmette.actors import (
    Actor,
    ActorDied,
    ActorError,
    DeadlineExceeded,
    Down,
    Exit,
    MailboxFull,
    Ref,
    System,
    TaskDone,
    deadline,
    endpoint,
)  # fmt: skip
from palmette.actors.simulation import SimulatedLoop
from palmette.supervisors import ChildSpec, DynamicSupervisor, StartRefused, Supervisor, child

SERVERS = ("/all/one", "/all/two", "/all/team/inner")
CLIENTS = ("/all/here", "/all/there")
ROUNDS = 12
PATIENCE = 8.0
"""Seconds that a caller waits."""


class Numbered(msgspec.Struct, frozen=True):
    """A message for ``receive``."""

    sender: str
    number: int


class Ledger:
    """What happened, by who (an incarnation) and whom."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, str], list[int]] = {}
        """What a server was given: numbers, by sender and server."""
        self.sent: dict[tuple[str, str], list[int]] = {}
        """What a client sent and was not refused: numbers, by sender and address."""
        self.outcomes: dict[tuple[str, str, int], list[str]] = {}
        """How a call ended, by sender, address and number. There should be one each."""
        self.watches: dict[tuple[str, str, int], float] = {}
        """Who watches how (``down``, ``exit``) under which number, and since when."""
        self.news: dict[tuple[str, str, int], int] = {}
        """How often the end was announced."""
        self.told = 0
        """Watchers of an end that all are told of, see ``tell_of_the_end``."""


class Book:
    """The present ledger."""

    ledger = Ledger()
    lives = itertools.count()


def name_of(actor: Actor) -> str:
    return f"{actor.path}#{actor.ref.incarnation}"


class Server(Actor):
    """Takes numbers, one at a time."""

    def __init__(self) -> None:
        self.taken = 0
        # An incarnation below a node's own actor is counted by the node, and so from 1 again in the next.
        self.life = f"{name_of(self)}/{next(Book.lives)}"

    def take(self, sender: str, number: int) -> int:
        self.taken += 1
        Book.ledger.given.setdefault((sender, self.life), []).append(number)
        return number

    @endpoint
    async def call(self, sender: str, number: int) -> int:
        await asyncio.sleep(0.05)
        return self.take(sender, number)

    @endpoint
    async def cast(self, sender: str, number: int) -> None:
        self.take(sender, number)

    async def receive(self, message: object) -> None:
        assert isinstance(message, Numbered)
        self.take(message.sender, message.number)

    @endpoint
    async def how_many(self) -> int:
        return self.taken


class Team(Supervisor):
    """A server below a node's own actor."""

    def __init__(self) -> None:
        super().__init__(max_restarts=1000, children=[child(Server, name="inner")])


class Client(Actor):
    """Talks to all servers for some rounds."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.done = False
        self.number = 0

    async def continued(self) -> None:
        self.start_task(self.talk(), tag="done")

    async def receive(self, message: object) -> None:
        assert isinstance(message, TaskDone)
        self.done = True

    @endpoint
    async def is_done(self) -> bool:
        return self.done

    async def talk(self) -> None:
        for turn in range(self.rounds):
            for path in SERVERS:
                server = self.system.ref_at(path, Server)
                calls = [self.call(server) for _ in range(1 + turn % 2)]
                self.tell(server, by_cast=True)
                self.tell(server, by_cast=False)
                await asyncio.gather(*calls)
            await asyncio.sleep(0.7)

    def tell(self, server: Ref[Server], *, by_cast: bool) -> None:
        me = name_of(self)
        self.number += 1
        try:
            if by_cast:
                server.cast(Server.cast, me, self.number)
            else:
                server.send(Numbered(me, self.number))
        except MailboxFull:
            return
        Book.ledger.sent.setdefault((me, server.path), []).append(self.number)

    async def call(self, server: Ref[Server]) -> None:
        me = name_of(self)
        self.number += 1
        number = self.number
        Book.ledger.sent.setdefault((me, server.path), []).append(number)
        began = self.system.loop.time()
        try:
            with deadline(PATIENCE):
                answer = await server.call(Server.call, me, number)
            outcome = "answer" if answer == number else f"the answer to {answer}"
        except (ActorDied, DeadlineExceeded) as error:
            outcome = type(error).__name__
        # A caller that stands still itself may find both, the answer and the hour, when it goes on.
        if self.system.uplink is None and self.system.loop.time() > began + PATIENCE + 0.001:
            outcome += ", late"
        Book.ledger.outcomes.setdefault((me, server.path, number), []).append(outcome)


class Again(msgspec.Struct, frozen=True):
    """Time to watch ``path`` again."""

    path: str


class Watcher(Actor):
    """Monitors and links itself to all servers, again and again."""

    trap_exit = True

    async def continued(self) -> None:
        for path in SERVERS:
            self.watch(path)

    def watch(self, path: str) -> None:
        ref = self.system.ref_at(path, Actor)
        Book.ledger.watches[(name_of(self), "down", self.monitor(ref))] = self.system.loop.time()

    async def receive(self, message: object) -> None:
        match message:
            case Down(ref, _, monitor):
                key = (name_of(self), "down", monitor)
                Book.ledger.news[key] = Book.ledger.news.get(key, 0) + 1
                self.send_after(1.0, Again(ref.path))
            case Again(path):
                self.watch(path)
            case _:
                raise AssertionError(message)


class Linked(Actor):
    """Is linked to all servers, and traps their exits."""

    trap_exit = True

    def __init__(self) -> None:
        self.ties = 0
        self.tied: dict[str, int] = {}

    async def continued(self) -> None:
        for path in SERVERS:
            self.tie(path)

    def tie(self, path: str) -> None:
        self.ties += 1
        self.tied[path] = self.ties
        ref = self.system.ref_at(path, Actor)
        Book.ledger.watches[(name_of(self), "exit", self.ties)] = self.system.loop.time()
        self.link(ref)

    async def receive(self, message: object) -> None:
        match message:
            case Exit(ref, _):
                key = (name_of(self), "exit", self.tied[ref.path])
                Book.ledger.news[key] = Book.ledger.news.get(key, 0) + 1
                self.send_after(1.0, Again(ref.path))
            case Again(path):
                self.tie(path)
            case _:
                raise AssertionError(message)


def tree() -> ChildSpec[Supervisor]:
    """All live below one supervisor, so that a first start that fails is not the end of the program."""
    return Supervisor.spec(children=[DynamicSupervisor.spec(name="all", max_restarts=10_000)])


def people(rounds: int) -> list[ChildSpec[Actor]]:
    return [
        child(Server, name="one", isolation="process"),
        child(Server, name="two", isolation="process"),
        child(Team, name="team", isolation="process"),
        child(Watcher, name="watcher"),
        child(Watcher, name="far-watcher", isolation="process"),
        child(Linked, name="linked"),
        child(Linked, name="far-linked", isolation="process"),
        child(Client, rounds, name="here"),
        child(Client, rounds, name="there", isolation="process"),
    ]


async def main(rounds: int = ROUNDS) -> dict[str, int]:
    """Let them talk, and wait until all is well.

    Returns how much each server was given in its last life, and how often a call of the client here had which outcome.
    """
    Book.ledger = ledger = Ledger()
    async with System.start(tree()) as system:
        for spec in people(rounds):
            await start(system.ref_at("/all", DynamicSupervisor), spec)
        for path in CLIENTS:
            await until(system.ref_at(path, Client))
        counts = {path: await settled(system.ref_at(path, Server)) for path in SERVERS}
        if isinstance(system.loop, SimulatedLoop):
            check(ledger)
            await tell_of_the_end(system, ledger)
    mine = Counter(outcome for key, [outcome] in ledger.outcomes.items() if key[0].startswith("/all/here#"))
    return {**counts, **mine}


async def tell_of_the_end(system: System, ledger: Ledger) -> None:
    """End all servers: everybody who has been watching one for a while is told so, once."""
    await asyncio.sleep(30.0)
    at = system.loop.time()
    for name in ("one", "two", "team"):
        system.ref_at(f"/all/{name}", Actor).kill()
    await asyncio.sleep(30.0)
    for key, since in ledger.watches.items():
        path, _, incarnation = key[0].partition("#")
        slot = system.slots[path]
        if since < at - 15.0 and slot.target is not None and slot.incarnation == int(incarnation):
            ledger.told += 1
            assert ledger.news.get(key) == 1, f"{key}, since {since}, was not told of an end at {at}, or more than once"


async def start(supervisor: Ref[DynamicSupervisor], spec: ChildSpec[Actor]) -> None:
    """Start a child; one that cannot start is tried again."""
    for _ in range(20):
        try:
            with deadline(300.0):
                await supervisor.call(DynamicSupervisor.start_child, spec)
        except StartRefused:
            await asyncio.sleep(1.0)
        else:
            return
    raise AssertionError(f"{spec.name} never started")


async def until(client: Ref[Client]) -> None:
    """Wait until ``client`` is done, through all deaths."""
    for _ in range(600):
        try:
            if await client.call(Client.is_done):
                return
        except ActorError:
            pass
        await asyncio.sleep(1.0)
    raise AssertionError(f"{client.path} was never done")


async def settled(server: Ref[Server]) -> int:
    """What ``server`` has taken, once it answers and nothing more comes."""
    before = -1
    for _ in range(600):
        try:
            now = await server.call(Server.how_many)
        except ActorError:
            now = -1
        if now == before != -1:
            return now
        before = now
        await asyncio.sleep(1.0)
    raise AssertionError(f"{server.path} never healed")


def check(ledger: Ledger) -> None:
    """What must hold, whatever went wrong."""
    for (sender, path, number), outcomes in ledger.outcomes.items():
        assert len(outcomes) == 1, (sender, path, number, outcomes)
        assert outcomes[0] in ("answer", "ActorDied", "DeadlineExceeded"), (sender, path, number, outcomes)
    everything: dict[tuple[str, str], list[int]] = {}
    for (sender, server), numbers in ledger.given.items():
        path = server.partition("#")[0]
        assert numbers == sorted(set(numbers)), f"{server} was given out of order or twice by {sender}: {numbers}"
        everything.setdefault((sender, path), []).extend(numbers)
        sent = ledger.sent[(sender, path)]
        # A call that nobody waits for any more is not handled: that is no loss.
        due = [n for n in sent if numbers[0] <= n <= numbers[-1] and not _timed_out(ledger, sender, path, n)]
        assert set(due) <= set(numbers), f"{server} lost {set(due) - set(numbers)} of {sender}"
    for (sender, path), numbers in everything.items():
        assert len(numbers) == len(set(numbers)), f"{path} was given twice by {sender}: {numbers}"
    for (sender, path, number), [outcome] in ledger.outcomes.items():
        if outcome == "answer":
            assert number in everything[(sender, path)], (sender, path, number)


def _timed_out(ledger: Ledger, sender: str, path: str, number: int) -> bool:
    return ledger.outcomes.get((sender, path, number), [""])[0] == "DeadlineExceeded"
