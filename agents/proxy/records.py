"""What a proxy is told, and what happens in its sessions."""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.agents.conversation import ToolCall
from palmette.agents.transcript import Turn

Api = Literal["chat", "completions", "responses"]


class Upstream(msgspec.Struct, frozen=True):
    """Where the calls go."""

    base_url: str
    """Up to and including ``/v1``."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key, on the proxy's host. An endpoint on loopback needs none."""
    model: str | None = None
    """Takes the place of whatever model a program asks for."""
    return_token_ids: bool = False
    """Ask for token ids and log-probabilities (vLLM, palmette's policy server), whether the program does or not."""
    prices: tuple[float, float] | None = None
    """US dollars for a million tokens, in and out; ``None`` where not known."""
    seconds: float = 600.0
    """Deadline of one call, permit and answer each."""


class ProxySession(msgspec.Struct, frozen=True, kw_only=True):
    """One program's access."""

    id: str
    token: str
    port: int
    """On the loopback of the proxy's host."""

    def __repr__(self) -> str:
        return f"<ProxySession {self.id} on port {self.port}>"

    def base_url(self, port: int | None = None) -> str:
        """What the program is to take for OpenAI's address; ``port``: where it finds the proxy instead."""
        return f"http://127.0.0.1:{self.port if port is None else port}/{self.id}/v1"


class CallWanted(msgspec.Struct, frozen=True, kw_only=True, tag="call_wanted"):
    """In a gated session: a call waits for :meth:`Proxy.go_on <palmette.agents.proxy.actor.Proxy.go_on>`."""

    number: int


class CallEnded(msgspec.Struct, frozen=True, kw_only=True, tag="call_ended"):
    """A call of the model, done with."""

    api: Api
    status: int
    """As the program saw it; 499 where it hung up first."""
    turn: Turn | None = None
    """``None`` where no completion came."""
    is_fresh: bool = False
    """It does not continue the conversation before it; ``turn.heard`` is all of it."""
    error: str = ""
    """Without secrets."""
    retry_after: float | None = None
    """Seconds that the server, or the limiter, asked to be left alone."""


class ToolWanted(msgspec.Struct, frozen=True, kw_only=True, tag="tool_wanted"):
    """The program calls a tool of ours, and waits for the answer."""

    number: int
    call: ToolCall


class ToolGivenUp(msgspec.Struct, frozen=True, kw_only=True, tag="tool_given_up"):
    """The program waits for that answer no more."""

    number: int


Event = CallWanted | CallEnded | ToolWanted | ToolGivenUp


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a session's events, in order."""

    first: int
    """The number of the first of them, from 0; greater than what was asked for where older ones were dropped."""
    events: tuple[Event, ...]
    is_over: bool
    """The session is closed, and there will be no more."""
