"""The model client of a training run: the policy server of the same tree, found by name.

It is made before there is a policy, so it is opened when the warm start has left a tokenizer, and connected to the
system that it is used in.
"""

from __future__ import annotations

from pathlib import Path

from palmette.actors import System
from palmette.agents.conversation import Session
from palmette.agents.errors import ModelUnavailable
from palmette.trainers.policy_server import generate
from palmette.trainers.sampling import Sample, SampleRequest
from palmette.trainers.session import PolicyClient
from palmette.trainers.tokenizer import Codec


class TrainedPolicy:
    """A :class:`~palmette.agents.conversation.ModelClient` for the policy in ``model_dir``."""

    def __init__(self, model_dir: Path, *, temperature: float, max_tokens: int) -> None:
        self._model_dir = model_dir
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._codec: Codec | None = None
        self._client: PolicyClient | None = None

    def open(self) -> None:
        """Load the codec. Blocking: it imports the tokenizer's library."""
        if self._codec is None:
            self._codec = Codec.load(self._model_dir)

    def connect(self, system: System) -> None:
        """Ask the policy server of ``system`` from now on."""
        assert self._codec is not None, "open() comes first"

        async def ask(request: SampleRequest) -> Sample:
            return await generate(system, request)

        self._client = PolicyClient(ask, self._codec, temperature=self._temperature, max_tokens=self._max_tokens)

    def session(self, task_id: str, *, seed: int) -> Session:
        if self._client is None:
            raise ModelUnavailable("the policy is not served yet")
        return self._client.session(task_id, seed=seed)

    async def close(self) -> None:
        """Nothing is held."""
