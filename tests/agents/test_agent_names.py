"""What --agent and --model say, and the advice for what they cannot mean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents import (
    ModelName,
    NoApiKey,
    OpenAIClient,
    UnknownAgent,
    UnknownModel,
    model_client,
    parse_agent,
    parse_model,
    react,
)
from palmette.agents.names import React, Recorded, Silent

RECORDINGS = {"reference": ["42"], "6b": ["41"]}


def replies(task_id: str, field: str) -> Sequence[str]:
    if field not in RECORDINGS:
        raise KeyError(f"no field {field!r}; there are reference, 6b")
    return [f"{task_id}: {text}" for text in RECORDINGS[field]]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("react", React()),
        ("reference", Recorded("reference")),
        ("silent", Silent()),
        ("recorded:6b", Recorded("6b")),
        ("recorded:a:b", Recorded("a:b")),
    ],
)
def test_agents_have_names(text: str, meant: object) -> None:
    assert parse_agent(text) == meant


@given(st.text() | st.sampled_from(["recorded:", "react:x", "React", "silent:", "", "recorded"]))
def test_any_other_name_is_answered_with_those_that_exist(text: str) -> None:
    if text in {"react", "reference", "silent"} or (text.startswith("recorded:") and text != "recorded:"):
        return
    with pytest.raises(UnknownAgent) as caught:
        parse_agent(text)
    assert str(caught.value) == (f"there is no agent {text!r}; the agents are react, reference, recorded:FIELD, silent")


@pytest.mark.parametrize(
    ("text", "option", "meant"),
    [
        ("openai/gpt-5", None, ModelName("gpt-5")),
        ("openai/Qwen/Qwen3-8B", None, ModelName("Qwen/Qwen3-8B")),
        ("openai/m@http://127.0.0.1:8000/v1", None, ModelName("m", "http://127.0.0.1:8000/v1")),
        ("openai/@cf/m@https://h/v1", None, ModelName("@cf/m", "https://h/v1")),
        ("openai/m", "http://h:1/v1", ModelName("m", "http://h:1/v1")),
        ("openai/m@http://h/v1", "http://h/v1", ModelName("m", "http://h/v1")),
    ],
)
def test_models_have_names_and_addresses(text: str, option: str | None, meant: ModelName) -> None:
    assert parse_model(text, base_url=option) == meant


@pytest.mark.parametrize("text", ["gpt-5", "openai/", "openai", "anthropic/x", "", "/x", "openai/@http://h/v1"])
def test_any_other_model_is_answered_with_how_one_is_written(text: str) -> None:
    with pytest.raises(UnknownModel, match="write it as openai/NAME or openai/NAME@http://HOST:PORT/v1") as caught:
        parse_model(text)
    assert repr(text) in str(caught.value)


def test_addresses_that_contradict_or_are_none_are_refused_without_their_credentials() -> None:
    with pytest.raises(UnknownModel, match="has two addresses, http://a/v1 and http://b/v1; keep one"):
        parse_model("openai/m@http://u:pw@a/v1", base_url="http://b/v1")
    with pytest.raises(UnknownModel, match="'localhost:80' is no address of a model; write it like http://"):
        parse_model("openai/m", base_url="localhost:80")


async def test_reference_recorded_and_silent_answer_from_the_data_set() -> None:
    answers: list[str | None] = []
    for text in ("reference", "recorded:6b", "silent"):
        client = model_client(parse_agent(text), None, replies, first_task="t1")
        for _ in range(2):  # every session begins at the beginning
            answers.append((await react("?", client.session("t1", seed=0))).answer)
        await client.close()
    assert answers == ["t1: 42", "t1: 42", "t1: 41", "t1: 41", "", ""]


def test_a_recording_that_is_not_there_is_told_before_anything_starts() -> None:
    with pytest.raises(UnknownAgent, match="no recording '7b': no field '7b'; there are reference, 6b"):
        model_client(Recorded("7b"), None, replies, first_task="t1")
    with pytest.raises(KeyError):
        model_client(Recorded("7b"), None, replies).session("t1", seed=0)


async def test_react_needs_a_model_and_the_model_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnknownModel, match="the agent 'react' needs a model; pass --model openai/NAME"):
        model_client(React(), None, replies)
    with pytest.raises(NoApiKey):
        model_client(React(), ModelName("gpt-5"), replies)
    client = model_client(React(), ModelName("m", "http://127.0.0.1:9/v1"), replies)
    assert repr(client) == "OpenAIClient('m', base_url='http://127.0.0.1:9/v1')"
    assert isinstance(client, OpenAIClient)
    await client.close()
