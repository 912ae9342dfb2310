"""A provider of models on simulated time: a rate limit, latencies, and faults; and agents that are its clients."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import msgspec

from palmette.actors import Actor, Ref, System
from palmette.agents import Completion, Message, ModelUnavailable, ToolSchema, Usage
from palmette.agents.limiter import LimitedClient, Limiter
from palmette.supervisors import Backoff, ChildSpec, DynamicSupervisor, Supervisor, child


class Faults(msgspec.Struct, frozen=True):
    """Shares of requests that fail whatever the load is."""

    too_many: float = 0.0
    """429, without a word on when to come back."""
    overloaded: float = 0.0
    """529."""
    timeout: float = 0.0


class Provider:
    """Takes ``rate`` requests a second; what is beyond is refused at once, with the seconds to wait.

    ``whole_seconds``: it rounds those up, as most providers do.
    """

    def __init__(self, rate: float, *, seed: int, faults: Faults | None = None, whole_seconds: bool = False) -> None:
        self.rate = rate
        self.faults = faults or Faults()
        self.answers: Counter[str] = Counter()
        self.served_at: list[float] = []
        self._whole_seconds = whole_seconds
        self._rng = random.Random(seed)
        self._level = rate
        self._at = 0.0

    async def answer(self, timeout: float) -> None:
        """One request."""
        now = asyncio.get_running_loop().time()
        self._level = min(self.rate, self._level + (now - self._at) * self.rate)
        self._at = now
        await asyncio.sleep(0.02)
        drawn = self._rng.random()
        if (drawn := drawn - self.faults.too_many) < 0:
            self._refuse("429", None)
        if (drawn := drawn - self.faults.overloaded) < 0:
            self._refuse("529", None)
        if (drawn := drawn - self.faults.timeout) < 0:
            await asyncio.sleep(timeout)
            self.answers["timeout"] += 1
            raise ModelUnavailable("no answer in time")
        if self._level < 1:
            wait = (1 - self._level) / self.rate
            self._refuse("429", float(-(-wait // 1)) if self._whole_seconds else wait)
        self._level -= 1
        await asyncio.sleep(self._rng.uniform(0.5, 1.5))
        self.answers["ok"] += 1
        self.served_at.append(asyncio.get_running_loop().time())

    def _refuse(self, status: str, retry_after: float | None) -> None:
        self.answers[status] += 1
        raise ModelUnavailable(status, retry_after=retry_after, overloaded=True)

    @property
    def refused_share(self) -> float:
        """Of all requests."""
        return 1 - self.answers["ok"] / self.answers.total()

    def throughput(self, since: float, until: float) -> float:
        """Answers a second, between two instants."""
        return sum(since <= at < until for at in self.served_at) / (until - since)


class ProviderClient:
    """A model client of the provider; each answer costs a cent and a hundred tokens."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def session(self, task_id: str, *, seed: int) -> ProviderClient:
        return self

    async def complete(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        max_tokens: int | None = None,
        timeout: float,
    ) -> Completion:
        await self._provider.answer(timeout)
        usage = Usage(input_tokens=60, output_tokens=40, cost=0.01)
        return Completion(message=Message(role="assistant", content="yes"), usage=usage)

    async def close(self) -> None:
        pass


class Asking(Actor):
    """An agent that asks and asks. A request that fails is its end, and its supervisor's affair."""

    def __init__(self, provider: Provider, limiter: Ref[Limiter], patience: float = 30.0) -> None:
        self._session = LimitedClient(ProviderClient(provider), limiter, owner=self.ref).session("t", seed=0)
        self._patience = patience

    async def continued(self) -> None:
        self.start_task(self._ask())

    async def _ask(self) -> None:
        question = [Message(role="user", content="?")]
        while True:
            await self._session.complete(question, timeout=self._patience)


def tree(limiter: ChildSpec[Limiter]) -> ChildSpec[Supervisor]:
    """A limiter, and room for agents."""
    return Supervisor.spec(children=[limiter, DynamicSupervisor.spec(name="agents", max_restarts=100000)])


async def start_agents(system: System, provider: Provider, count: int) -> list[str]:
    """``count`` agents that an outage does not bring to an end; their addresses."""
    agents = system.whereis("agents", DynamicSupervisor)
    limiter = system.whereis("limiter", Limiter)
    return [
        await agents.call(
            DynamicSupervisor.start_child,
            child(
                Asking,
                provider,
                limiter,
                name=f"agent-{number}",
                restart="transient",
                backoff=Backoff(min=0.5, max=5.0, give_up_after=1e9),
                rules={"retryable": "backoff", "BudgetSpent": "stop"},
            ),
        )
        for number in range(count)
    ]
