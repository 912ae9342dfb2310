"""What the proxy does when a token is wrong, a server fails, a program hangs up, or it dies itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from proxy_support import KEY, KEY_ENV, next_call, program, proxy_of, proxy_system
from support.openai_server import Hang, HangUp, Http, OpenAIServer, Stream, chunk, says, sse, status

from palmette.actors import Actor, ActorDied, Ref, System, endpoint
from palmette.agents import ToolCall, tool
from palmette.agents.limiter import Limiter, LimiterSettings
from palmette.agents.proxy import Proxy, ProxyLine, ProxySession, Upstream
from palmette.agents.toolbox import Toolbox, ToolResult
from palmette.supervisors import DynamicSupervisor, child


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture
async def system(openai_server: OpenAIServer) -> AsyncIterator[System]:
    openai_server.key = KEY
    upstream = Upstream(openai_server.base_url, KEY_ENV, seconds=30.0, prices=(1e5, 0.0))
    async with proxy_system(upstream, LimiterSettings(dollars=1.0)) as one:
        yield one


@pytest.fixture
async def line(system: System) -> AsyncIterator[ProxyLine]:
    async with ProxyLine.open(proxy_of(system), "worker") as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        yield client


async def _ask(client: openai.AsyncOpenAI, *, stream: bool = False) -> None:
    answer = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=stream
    )
    if isinstance(answer, openai.AsyncStream):
        async for _ in answer:
            pass


class Opener(Actor):
    """An agent with a session."""

    def __init__(self, proxy: Ref[Proxy]) -> None:
        self._proxy = proxy

    @endpoint
    async def open(self) -> ProxySession:
        """One of its own."""
        return await self._proxy.call(Proxy.open, "agent", owner=self.ref)


async def test_a_token_is_good_for_its_own_session_and_only_while_that_lives(
    system: System, http: httpx2.AsyncClient, openai_server: OpenAIServer
) -> None:
    """Another session's, none, one too long ago: all are refused, and the model's server hears nothing of it."""
    async with ProxyLine.open(proxy_of(system), "a") as a, ProxyLine.open(proxy_of(system), "b") as b:
        tokens = {"": 401, "Bearer": 401, f"Bearer {b.session.token}": 401, f"Basic {a.session.token}": 401}
        for header, expected in tokens.items():
            got = await http.post(
                f"{a.session.base_url()}/chat/completions", json={}, headers={"authorization": header}
            )
            assert got.status_code == expected, header
    url, headers = f"{a.session.base_url()}/chat/completions", {"authorization": f"Bearer {a.session.token}"}
    got = await http.post(url, json={"messages": []}, headers=headers)
    assert (got.status_code, got.json()["error"]["code"]) == (401, "invalid_api_key")
    assert openai_server.requests == []


async def test_a_session_ends_with_its_owner(system: System, openai_server: OpenAIServer) -> None:
    agents = system.whereis("agents", DynamicSupervisor)
    path = await agents.call(
        DynamicSupervisor.start_child, child(Opener, proxy_of(system), name="opener", restart="temporary")
    )
    opener = system.ref_at(path, Opener)
    session = await opener.call(Opener.open)
    openai_server.plan(says("hi"), says("hi"))
    async with openai.AsyncOpenAI(base_url=session.base_url(), api_key=session.token, max_retries=0) as client:
        await _ask(client)
        await opener.terminate()
        assert (await proxy_of(system).call(Proxy.statistics)).sessions == 0
        with pytest.raises(openai.AuthenticationError):
            await _ask(client)


async def test_what_is_no_call_of_a_model_is_refused(
    line: ProxyLine, http: httpx2.AsyncClient, openai_server: OpenAIServer
) -> None:
    """Other paths and methods, and what is no JSON; nothing of it reaches the server."""
    base, headers = line.session.base_url(), {"authorization": f"Bearer {line.session.token}"}
    assert (await http.post(f"{base}/files", headers=headers)).status_code == 404
    assert (await http.delete(f"{base}/models", headers=headers)).status_code == 404
    assert (await http.post(f"{base}/../../x/v1/chat/completions", headers=headers)).status_code == 401
    for body in (b"", b"[1]", b"{"):
        assert (await http.post(f"{base}/chat/completions", content=body, headers=headers)).status_code == 400
    assert openai_server.requests == []


async def test_nothing_listens_beyond_loopback(line: ProxyLine) -> None:
    """The same port on another address of this host is closed."""
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", line.session.port))


async def test_errors_of_the_server_are_passed_on_without_the_key(line: ProxyLine, openai_server: OpenAIServer) -> None:
    """And with the time that it wants to be left alone."""
    openai_server.plan(
        status(401, f"Incorrect API key provided: {KEY}"),
        status(429, "slow down", retry_after="0.25"),
        status(400, "no"),
    )
    calls = line.calls()
    async with program(line) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await _ask(client)
        assert KEY not in str(refused.value)
        assert "[key]" in str(refused.value)
        with pytest.raises(openai.RateLimitError) as busy:
            await _ask(client, stream=True)
        assert busy.value.response.headers["retry-after-ms"] == "250"
        with pytest.raises(openai.BadRequestError):
            await _ask(client)
    told = [await next_call(calls) for _ in range(3)]
    assert [call.status for call in told] == [401, 429, 400]
    assert not any(KEY in call.error for call in told)
    assert all(call.turn is None for call in told)


async def test_a_server_that_cannot_be_reached_or_breaks_off_is_told_as_that(
    line: ProxyLine, openai_server: OpenAIServer
) -> None:
    """A program sees a status where none had gone out, and a broken stream where one had."""
    calls = line.calls()
    go_on = asyncio.Semaphore(1)
    openai_server.plan(HangUp(), HangUp(b'{"choices": ['), Stream((sse(chunk("he")),), go_on))
    async with program(line) as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="cannot reach the model endpoint"):
                await _ask(client)
        await _ask(client, stream=True)
    told = [await next_call(calls) for _ in range(3)]
    assert [call.status for call in told] == [502, 502, 200]
    assert "broke off" in told[2].error
    assert all(call.turn is None for call in told)


async def test_what_cannot_be_read_is_passed_on_and_said(line: ProxyLine, openai_server: OpenAIServer) -> None:
    """The proxy does not stand between a program and its server."""
    openai_server.plan(Http(200, b'{"choices": 7}', {"content-type": "application/json"}))
    async with program(line) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hello"}]
        )
        assert raw.content == b'{"choices": 7}'
    assert "cannot be read" in (await next_call(line.calls())).error


async def test_a_program_that_hangs_up_ends_its_request_at_the_server(
    system: System, line: ProxyLine, openai_server: OpenAIServer
) -> None:
    """And the limiter has its permit back."""
    openai_server.plan(Hang())
    async with program(line) as client:
        asking = asyncio.create_task(_ask(client))
        await openai_server.asked()
        asking.cancel()
        await asyncio.wait([asking])
    call = await next_call(line.calls())
    assert (call.status, call.error) == (499, "the program hung up")
    statistics = await system.whereis("limiter", Limiter).call(Limiter.statistics)
    assert (statistics.under_way, statistics.ended) == (0, {"lost": 1})


async def test_a_budget_that_is_spent_is_told_as_that(line: ProxyLine, openai_server: OpenAIServer) -> None:
    """With a status that no client tries again after."""
    openai_server.plan(says("hi", usage=(10, 0)))
    async with program(line) as client:
        await _ask(client)
        with pytest.raises(openai.APIStatusError) as refused:
            await _ask(client)
    assert refused.value.status_code == 402
    assert refused.value.code == "budget_spent"
    assert len(openai_server.requests) == 1


async def test_tools_of_ours_are_called_through_the_proxy(system: System, http: httpx2.AsyncClient) -> None:
    """They are listed, run, added while the program runs, and stopped when it does not wait any more."""
    stopped = asyncio.Event()

    async def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    async def hang() -> None:
        """Never ends."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    toolbox = Toolbox()
    toolbox.add(tool(add))
    async with ProxyLine.open(proxy_of(system), "worker", toolbox=toolbox) as line:
        reading = asyncio.create_task(_read(line))
        base = line.session.base_url().removesuffix("/v1") + "/tools"
        headers = {"authorization": f"Bearer {line.session.token}"}
        listed = (await http.get(base, headers=headers)).json()
        assert [each["name"] for each in listed["tools"]] == ["add"]
        got = await http.post(f"{base}/add", json={"id": "1", "arguments": '{"x": 2, "y": 3}'}, headers=headers)
        assert got.json() == {"text": "5", "failed": False}
        got = await http.post(f"{base}/add", json={"id": "1", "arguments": '{"x": "two"}'}, headers=headers)
        assert got.json()["failed"] is True
        newer = asyncio.create_task(http.get(f"{base}?after={listed['version']}", headers=headers, timeout=60))
        toolbox.add(tool(hang))
        await line.set_tools(toolbox)
        assert [each["name"] for each in (await newer).json()["tools"]] == ["add", "hang"]
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(f"{base}/hang", json={"id": "2", "arguments": ""}, headers=headers, timeout=0.3)
        async with asyncio.timeout(20):
            await stopped.wait()
    await reading


async def test_a_tool_that_crashes_is_its_agents_crash(system: System, http: httpx2.AsyncClient) -> None:
    """It comes out where the calls are read."""

    async def bad() -> None:
        raise KeyError("a bug")

    toolbox = Toolbox()
    toolbox.add(tool(bad))
    async with ProxyLine.open(proxy_of(system), "worker", toolbox=toolbox) as line:
        reading = asyncio.create_task(_read(line))
        headers = {"authorization": f"Bearer {line.session.token}"}
        base = line.session.base_url().removesuffix("/v1") + "/tools"
        asking = asyncio.create_task(http.post(f"{base}/bad", json={"id": "1", "arguments": ""}, headers=headers))
        with pytest.raises(KeyError, match="a bug"):
            await reading
    with pytest.raises(httpx2.RemoteProtocolError):  # its session was closed under it
        await asking


async def test_calls_wait_while_the_agent_is_paused(system: System, openai_server: OpenAIServer) -> None:
    """And go to the server once it may go on."""
    may_go_on = asyncio.Event()
    openai_server.plan(says("hi"))
    async with ProxyLine.open(proxy_of(system), "worker", may_go_on=may_go_on) as line, program(line) as client:
        reading = asyncio.create_task(next_call(line.calls()))
        asking = asyncio.create_task(_ask(client))
        await asyncio.wait([asking], timeout=0.2)
        assert openai_server.requests == []
        may_go_on.set()
        await asking
        assert (await reading).status == 200


async def test_a_proxy_that_dies_takes_its_sessions_along_and_whoever_reads_learns_of_it(
    system: System, openai_server: OpenAIServer
) -> None:
    """Its supervisor starts another, which does not know the old tokens."""
    proxy = proxy_of(system)
    async with ProxyLine.open(proxy, "worker") as line:
        reading = asyncio.create_task(_read(line))
        await asyncio.sleep(0)
        proxy.kill()
        with pytest.raises(ActorDied):
            await reading
        await system.wait_for("proxy", Proxy)
    async with ProxyLine.open(proxy_of(system), "worker") as line:
        openai_server.plan(says("hi"))
        async with program(line, token=line.session.token) as client:
            await _ask(client)


def test_a_session_does_not_show_its_token() -> None:
    session = ProxySession(id="a-1", token="secret", port=1)
    assert "secret" not in f"{session} {session!r}"


async def _read(line: ProxyLine) -> None:
    async for _ in line.calls():
        pass


async def test_calls_of_a_tool_carry_the_programs_own_id(system: System, http: httpx2.AsyncClient) -> None:
    """So that a harness can match them with the model's turn."""
    seen: list[ToolCall] = []
    toolbox = Toolbox()
    toolbox.add(tool(lambda: "x", name="look", description=""))

    async def run(call: ToolCall) -> ToolResult:
        seen.append(call)
        return await toolbox.run(call)

    async with ProxyLine.open(proxy_of(system), "worker", toolbox=toolbox, run_tool=run) as line:
        reading = asyncio.create_task(_read(line))
        headers = {"authorization": f"Bearer {line.session.token}"}
        base = line.session.base_url().removesuffix("/v1") + "/tools"
        await http.post(f"{base}/look", json={"id": "call_7", "arguments": "{}"}, headers=headers)
    await reading
    assert seen == [ToolCall(id="call_7", name="look", arguments="{}")]
