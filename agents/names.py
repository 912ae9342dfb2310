"""What ``--agent`` and ``--model`` mean.

Agents::

    react             the model works on the task, with the benchmark's tools; needs --model
    reference         replies with the data set's own solution: must score 1.0
    recorded:FIELD    replays the replies that the data set holds under FIELD
    silent            answers nothing: must score 0

Models::

    openai/NAME                              at OpenAI, or at OPENAI_BASE_URL
    openai/NAME@http://127.0.0.1:8000/v1     at any endpoint that speaks OpenAI's chat completions

All agents run in the same harness; they differ in the model client behind it, which :func:`model_client` makes.

>>> parse_agent("recorded:175b_finetuning")
Recorded(field='175b_finetuning')
>>> parse_model("openai/qwen3@http://127.0.0.1:8000/v1").base_url
'http://127.0.0.1:8000/v1'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec

from palmette.agents.boundary import public_url
from palmette.agents.conversation import ModelClient
from palmette.agents.errors import UnknownAgent, UnknownModel
from palmette.agents.openai_client import OpenAIClient
from palmette.agents.scripted import ScriptedClient, silent

AGENTS = ("react", "reference", "recorded:FIELD", "silent")
"""How agents are written on a command line."""
MODELS = ("openai/NAME", "openai/NAME@http://HOST:PORT/v1")
"""How models are written on a command line."""

Replies = Callable[[str, str], Sequence[str]]
"""``(task_id, field)`` to the recorded replies, as a benchmark has them; ``KeyError`` if there are none."""


class React(msgspec.Struct, frozen=True):
    """A model is asked."""


class Recorded(msgspec.Struct, frozen=True):
    """The data set's recording is replayed; ``reference`` is one that every data set with answers has."""

    field: str


class Silent(msgspec.Struct, frozen=True):
    """Nothing is answered."""


AgentName = React | Recorded | Silent


class ModelName(msgspec.Struct, frozen=True):
    """A model and where it is served."""

    name: str
    base_url: str | None = None


def parse_agent(text: str) -> AgentName:
    """Read an ``--agent`` option.

    Raises:
        UnknownAgent: naming those that exist.
    """
    kind, colon, field = text.partition(":")
    match kind, colon, field:
        case "react", "", "":
            return React()
        case "reference", "", "":
            return Recorded("reference")
        case "silent", "", "":
            return Silent()
        case "recorded", ":", field if field:
            return Recorded(field)
        case _:
            raise UnknownAgent(f"there is no agent {text!r}; the agents are {', '.join(AGENTS)}")


def parse_model(text: str, *, base_url: str | None = None) -> ModelName:
    """Read a ``--model`` option; ``base_url`` is the separate option, which may say the address instead.

    Raises:
        UnknownModel: showing how one is written.
    """
    provider, slash, rest = text.partition("/")
    name, at, address = rest, "", ""
    for scheme in ("@http://", "@https://"):
        if scheme in rest:
            name, at, address = rest.partition(scheme)
            address = at[1:] + address
            break
    if provider != "openai" or not slash or not name:
        shown = f"{provider}/{name}@{public_url(address)}" if at else text
        raise UnknownModel(f"there is no model {shown!r}; write it as {' or '.join(MODELS)}")
    if at and base_url is not None and base_url != address:
        raise UnknownModel(
            f"the model {name!r} has two addresses, {public_url(address)} and {public_url(base_url)}; keep one"
        )
    found = address or base_url
    if found is not None and (urlsplit(found).scheme not in {"http", "https"} or not urlsplit(found).hostname):
        raise UnknownModel(f"{public_url(found)!r} is no address of a model; write it like http://127.0.0.1:8000/v1")
    return ModelName(name, found)


def model_client(
    agent: AgentName,
    model: ModelName | None,
    replies: Replies,
    *,
    first_task: str | None = None,
    return_token_ids: bool = False,
) -> ModelClient:
    """The client behind ``agent``.

    Args:
        agent: From :func:`parse_agent`.
        model: From :func:`parse_model`; only ``react`` needs one.
        replies: Where the benchmark keeps its recordings.
        first_task: A task on which a recording is tried at once, so that a field that is not there is told before
            anything is started.
        return_token_ids: See :class:`~palmette.agents.openai_client.OpenAIClient`.

    Raises:
        UnknownAgent: there is no such recording.
        UnknownModel: ``react`` without a model.
        NoApiKey: the model's endpoint wants a key.
    """
    match agent:
        case React():
            if model is None:
                raise UnknownModel(f"the agent 'react' needs a model; pass --model {MODELS[0]}")
            return OpenAIClient(model.name, base_url=model.base_url, return_token_ids=return_token_ids)
        case Silent():
            return silent()
        case Recorded(field):
            if first_task is not None:
                try:
                    replies(first_task, field)
                except KeyError as error:
                    told = error.args[0] if error.args else "it does not say which it has"
                    raise UnknownAgent(f"this benchmark has no recording {field!r}: {told}") from None
            return ScriptedClient(lambda task_id: replies(task_id, field), name=f"recorded:{field}")
