"""The policy server in a process of its own: what it answers, what it refuses, and how it comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import openai
import psutil
import pytest

from palmette.actors import ActorDied, Refused, System
from palmette.supervisors import Supervisor, child
from palmette.trainers.engine import PolicyEngine
from palmette.trainers.policy import create, load_model, weights_to_bytes
from palmette.trainers.policy_server import BadWeights, NotLoaded, PolicyServer, TooLong, generate
from palmette.trainers.sampling import BadRequest, SampleRequest, WindowExceeded

ASK = SampleRequest(prompt_ids=(3, 50, 60, 1, 4), max_tokens=8, seed=7)


@asynccontextmanager
async def serving(model: Path, state: Path) -> AsyncGenerator[System]:
    server = child(PolicyServer, str(model), str(state), name="policy", isolation="process")
    async with asyncio.timeout(100), System.start(Supervisor.spec(children=[server])) as system:
        yield system


async def test_it_loads_samples_publishes_and_refuses(policy_dir: Path, engine: PolicyEngine, tmp_path: Path) -> None:
    model = tmp_path / "warm"
    async with serving(model, tmp_path) as system:
        policy = system.whereis("policy", PolicyServer)
        assert await policy.call(PolicyServer.version) == -1
        for early in (
            policy.call(PolicyServer.generate, ASK),
            policy.call(PolicyServer.publish, b"", 1),
            policy.call(PolicyServer.serve_openai),
            generate(system, ASK),
        ):
            with pytest.raises(NotLoaded, match="has no policy yet") as caught:
                await early
            assert caught.value.retryable

        shutil.copytree(policy_dir, model)
        assert await policy.call(PolicyServer.load) == 0
        assert await policy.call(PolicyServer.load) == 0
        expected = engine.generate([ASK])[0]
        samples = await asyncio.gather(*(generate(system, ASK) for _ in range(20)))
        assert {sample.output_ids for sample in samples} == {expected.output_ids}, "its batch has no say in a reply"
        assert all(sample.logprobs == pytest.approx(expected.logprobs, abs=1e-4) for sample in samples)
        assert (await policy.call(PolicyServer.statistics)).batches < 20

        with pytest.raises(TooLong):
            await policy.call(PolicyServer.generate, msgspec.structs.replace(ASK, max_tokens=100_000))
        with pytest.raises(WindowExceeded):
            await generate(system, msgspec.structs.replace(ASK, max_tokens=100_000))
        with pytest.raises(BadRequest, match="temperature must be at least 0"):
            await generate(system, msgspec.structs.replace(ASK, temperature=-1.0))
        for weights in (b"nonsense", weights_to_bytes(load_model(policy_dir))[:-1]):
            with pytest.raises(BadWeights, match="keeps version 0"):
                await policy.call(PolicyServer.publish, weights, 1)
        assert not (tmp_path / "published.msgpack").exists()
        assert (await generate(system, ASK)).output_ids == expected.output_ids

        other = create(tmp_path / "other", seed=99)
        await policy.call(PolicyServer.publish, weights_to_bytes(load_model(other)), 5)
        assert await policy.call(PolicyServer.version) == 5
        sample = await generate(system, ASK)
        assert sample.policy_version == 5
        assert sample.output_ids == PolicyEngine(other).generate([ASK])[0].output_ids
        assert policy.incarnation == 1


async def test_killed_it_comes_back_with_what_was_published_last_and_those_who_come_meanwhile_wait(
    policy_dir: Path, tmp_path: Path
) -> None:
    async with serving(policy_dir, tmp_path) as system:
        policy = system.whereis("policy", PolicyServer)
        await policy.call(PolicyServer.load)
        weights = weights_to_bytes(load_model(create(tmp_path / "other", seed=99)))
        await policy.call(PolicyServer.publish, weights, 3)
        before = await generate(system, ASK)
        pid = await policy.call(PolicyServer.pid)
        long = msgspec.structs.replace(ASK, max_tokens=1000, temperature=3.0)
        under_way = [asyncio.ensure_future(policy.call(PolicyServer.generate, long)) for _ in range(3)]
        while (await policy.call(PolicyServer.statistics)).running == 0:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        for one in under_way:
            with pytest.raises(ActorDied):
                await one
        meanwhile = await generate(system, ASK)
        assert meanwhile.output_ids == before.output_ids
        assert meanwhile.policy_version == before.policy_version == 3
        assert policy.incarnation == 2
        assert await policy.call(PolicyServer.pid) != pid


async def test_the_openai_sdk_reaches_it_with_its_token_and_not_without(policy_dir: Path, tmp_path: Path) -> None:
    async with serving(policy_dir, tmp_path) as system:
        policy = system.whereis("policy", PolicyServer)
        served = await policy.call(PolicyServer.serve_openai)
        assert served == await policy.call(PolicyServer.serve_openai)
        assert served.token not in repr(served)
        assert served.base_url.startswith("http://127.0.0.1:")
        hello = [{"role": "user", "content": "find 3"}]
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key=served.token, max_retries=0) as client:
            (model,) = [model.id async for model in client.models.list()]
            answer = await client.chat.completions.create(
                model=model,
                messages=hello,  # pyright: ignore[reportArgumentType]
                max_tokens=4,
            )
            assert answer.usage is not None
            assert 1 <= answer.usage.completion_tokens <= 4
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key="guessed", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        pid = await policy.call(PolicyServer.pid)
    assert not psutil.pid_exists(pid)


def test_its_refusals_are_refusals() -> None:
    assert all(issubclass(refusal, Refused) for refusal in (NotLoaded, TooLong, BadWeights))
