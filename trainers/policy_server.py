"""The policy server: an actor, in a process of its own, that samples from the policy that is being trained.

It answers :meth:`PolicyServer.generate` for every agent of a run, many at a time in one batch, and takes new weights
between two batches. Published weights are on disk before they are acknowledged, so a server that is killed comes back
with the newest version and nobody samples from an old one by accident.

::

    Refused               (actors) the server turns one request down and lives on; see generate() for what callers get
    ├── NotLoaded         there is no policy yet; retryable
    ├── Overloaded        too many requests wait, or this one waited too long; retryable
    ├── TooLong           prompt and reply together do not fit the policy's window
    └── BadWeights        published weights are not those of this policy
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palmette.actors import Actor, Reason, Ref, Refused, System, deadline, endpoint
from palmette.trainers.batching import Batcher, BatcherStatistics, QueueFull
from palmette.trainers.sampling import BadRequest, Sample, SampleRequest, WindowExceeded

if TYPE_CHECKING:
    from palmette.trainers.engine import PolicyEngine
    from palmette.trainers.openai_endpoint import OpenAIEndpoint

LOAD_SECONDS = 300.0
SAMPLE_SECONDS = 120.0


class NotLoaded(Refused):
    """The server has no policy yet."""

    retryable = True


class Overloaded(Refused):
    """The server has more to do than it can do in time."""

    retryable = True


class TooLong(Refused):
    """The conversation has outgrown the policy's window."""


class BadWeights(Refused):
    """The weights do not fit the policy; the server goes on with those that it has."""


class Published(msgspec.Struct, frozen=True):
    """The newest weights, as they lie on disk."""

    version: int
    weights: bytes


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the policy can be reached by OpenAI's protocol."""

    base_url: str
    token: str

    def __repr__(self) -> str:
        return f"Endpoint(base_url={self.base_url!r}, token=…)"


class PolicyServer(Actor):
    """Serves the policy in ``model_dir`` once it is there; keeps published weights in ``state_dir``."""

    def __init__(self, model_dir: str, state_dir: str, device: str = "cpu", max_batch_size: int = 64) -> None:
        self._model_dir = Path(model_dir)
        self._published = Path(state_dir) / "published.msgpack"
        self._device = device
        self._max_batch_size = max_batch_size
        self._engine: PolicyEngine | None = None
        self._batcher: Batcher[SampleRequest, Sample] | None = None
        self._endpoint: OpenAIEndpoint | None = None

    async def continued(self) -> None:
        if self._model_dir.is_dir():
            await self._load()

    async def stopping(self, reason: Reason) -> None:
        if self._endpoint is not None:
            await self._endpoint.stop()
        if self._batcher is not None:
            await self._batcher.aclose()

    @endpoint
    async def load(self) -> int:
        """Load the policy, which lies in ``model_dir`` by now; its version. Loading twice is fine."""
        if self._engine is None:
            await self._load()
        assert self._engine is not None
        return self._engine.policy_version

    @endpoint
    async def generate(self, request: SampleRequest) -> Sample:
        """Sample one reply. Requests that wait together are answered in one batch, without influence on each other.

        Raises:
            NotLoaded, Overloaded, TooLong: see the top of this module.
            Refused: the request makes no sense to this policy in another way.
        """
        batcher, _ = self._loaded()
        return self.answer_later(self._sample(batcher, request))

    @endpoint
    async def publish(self, weights: bytes, version: int) -> None:
        """Use new weights (safetensors) from the next batch on; they are on disk when this returns.

        Raises:
            NotLoaded, BadWeights
        """
        batcher, engine = self._loaded()
        try:
            # First: weights that do not fit must not lie in wait for the next start.
            await batcher.run(lambda: engine.load_weights(weights, version), timeout=LOAD_SECONDS)
        except ValueError as error:
            raise BadWeights(f"{self.path} keeps version {engine.policy_version}: {error}") from None
        await asyncio.to_thread(self._keep, Published(version, weights))

    @endpoint
    async def version(self) -> int:
        """How many optimiser steps are in the weights that are served; -1 while there are none."""
        return -1 if self._engine is None else self._engine.policy_version

    @endpoint
    async def pid(self) -> int:
        """The server's process."""
        return os.getpid()

    @endpoint
    async def statistics(self) -> BatcherStatistics:
        """How batching does."""
        batcher, _ = self._loaded()
        return batcher.statistics()

    @endpoint
    async def serve_openai(self, port: int = 0) -> Endpoint:
        """Serve the policy on loopback as an OpenAI-compatible endpoint, behind a token; idempotent.

        A server that was restarted has forgotten it: ask again, the address and the token will be others.

        Raises:
            NotLoaded
        """
        from palmette.trainers.openai_endpoint import OpenAIEndpoint

        batcher, engine = self._loaded()
        if self._endpoint is None:
            self._endpoint = OpenAIEndpoint(
                lambda request: batcher.submit(request, timeout=SAMPLE_SECONDS), engine.codec, port=port
            )
            await self._endpoint.start()
        return Endpoint(base_url=self._endpoint.base_url, token=self._endpoint.token)

    async def _sample(self, batcher: Batcher[SampleRequest, Sample], request: SampleRequest) -> Sample:
        try:
            return await batcher.submit(request, timeout=SAMPLE_SECONDS)
        except WindowExceeded as error:
            raise TooLong(str(error)) from None
        except BadRequest as error:
            raise Refused(str(error)) from None
        except (QueueFull, TimeoutError) as error:
            raise Overloaded(str(error) or f"no answer within {SAMPLE_SECONDS:g} s") from None

    def _loaded(self) -> tuple[Batcher[SampleRequest, Sample], PolicyEngine]:
        if self._batcher is None or self._engine is None:
            raise NotLoaded(f"{self.path} has no policy yet: {self._model_dir} is not there")
        return self._batcher, self._engine

    async def _load(self) -> None:
        def load() -> PolicyEngine:
            from palmette.trainers.engine import PolicyEngine

            engine = PolicyEngine(self._model_dir, device=self._device)
            if self._published.exists():
                kept = msgspec.msgpack.decode(self._published.read_bytes(), type=Published)
                engine.load_weights(kept.weights, kept.version)
            return engine

        engine = await asyncio.to_thread(load)
        self._engine = engine
        self._batcher = Batcher(engine.generate, check=engine.check, max_batch_size=self._max_batch_size)

    def _keep(self, published: Published) -> None:
        self._published.parent.mkdir(parents=True, exist_ok=True)
        partial = self._published.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(msgspec.msgpack.encode(published))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._published)


async def generate(system: System, request: SampleRequest) -> Sample:
    """Ask the policy server of ``system``, waiting out its restart if it is just being restarted.

    Waiting is no retry: a call that was under way when the server died fails, and its agent's supervisor decides.

    Raises:
        WindowExceeded, BadRequest, QueueFull: as a batcher in this process does.
        ActorDied, DeadlineExceeded, NotLoaded: the server is gone, or does not get to it.
    """
    with deadline(SAMPLE_SECONDS):
        policy: Ref[PolicyServer] = await system.wait_for("policy", PolicyServer)
        try:
            return await policy.call(PolicyServer.generate, request)
        except TooLong as error:
            raise WindowExceeded(str(error)) from None
        except Overloaded as error:
            raise QueueFull(str(error)) from None
        except NotLoaded:
            raise
        except Refused as error:
            raise BadRequest(str(error)) from None
