"""The harness ``pi``: the pi coding agent in RPC mode, on any machine that has it.

pi (npm: ``@earendil-works/pi-coding-agent``; 0.73.1 and 0.74.2 were tried, on Node 20) drives the model with its own
tools and loop; ours are offered to it by an extension. Its model is behind the recording proxy, so it has no key, and
each of its calls is a turn with all that the proxy knows of it. Its own retries are off: a call that failed is the
harness's end with the error that it was, and the agent's supervisor decides.

It has a directory of its own on the machine, below ``.palmette``; sessions, settings and extensions of the machine's
user are not used. A harness that is made with earlier turns gives pi a session of them, and it goes on from there.

=====================  =================================================================================================
pi's process ends      :class:`~palmette.agents.harnesses.errors.HarnessDied`, with its last words
it does not answer     :class:`~palmette.agents.harnesses.errors.HarnessHung`, after two silent :data:`PING_SECONDS`
its model fails        the :class:`~palmette.agents.errors.ModelError` (pi itself would call that a normal end)
it is stopped          ``abort``, end of input, a grace of :data:`GRACE` seconds, then SIGKILL to all that it started
=====================  =================================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import cast

import msgspec

from palmette.actors import Ref
from palmette.agents.conversation import ToolCall
from palmette.agents.harness import Harness, HarnessFactory, HarnessSetup, Settled, ToolBegan, ToolEnded
from palmette.agents.harnesses.errors import HarnessError, HarnessHung
from palmette.agents.harnesses.pi_rpc import Json, PiProcess
from palmette.agents.harnesses.pi_session import session_file
from palmette.agents.harnesses.program import LIFE, ProgramHarness, error_of
from palmette.agents.proxy import CallEnded, Proxy

START_SECONDS = 60.0
"""For pi to come up."""
PING_SECONDS = 30.0
"""How often a pi that is silent is asked whether it lives, and how long its answer may take."""
GRACE = 3.0
"""Seconds for pi to end by itself."""
GO_ON = "You were interrupted by a restart. Go on where you were."
"""Said to a pi whose predecessor was in the middle of something; no message of anybody's."""


def pi_harness(
    proxy: Ref[Proxy],
    *,
    command: Sequence[str] = ("pi",),
    model: str = "default",
    env: Mapping[str, str] | None = None,
    own_tools: bool = True,
    context_window: int = 128000,
) -> HarnessFactory:
    """A factory of harnesses that are each a pi.

    Args:
        proxy: Through which it reaches its model.
        command: How pi is started on the machine.
        model: What the model is called where the agent does not say; a proxy may have its own word on that.
        env: What it needs besides, such as a ``PATH`` with ``node`` in it.
        own_tools: Whether it has its own tools (read, bash, edit, write).
        context_window: Of the model, in tokens; pi compacts a conversation that comes near.
    """

    def make(setup: HarnessSetup) -> Harness:
        return PiHarness(setup, proxy, command, setup.model or model, env or {}, own_tools, context_window)

    return make


class PiHarness(ProgramHarness):
    """Made by :func:`pi_harness`."""

    def __init__(
        self,
        setup: HarnessSetup,
        proxy: Ref[Proxy],
        command: Sequence[str],
        model: str,
        env: Mapping[str, str],
        own_tools: bool,
        context_window: int,
    ) -> None:
        super().__init__(setup, proxy)
        self._command = command
        self._model = model
        self._env = env
        self._own_tools = own_tools
        self._context_window = context_window
        self._pi: PiProcess | None = None
        self._began: dict[str, tuple[ToolCall, float]] = {}
        self._is_interrupted = False
        self._is_busy = False
        self._said = ""
        self._failed: str | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        home = f".palmette/pi/{self.setup.session}"
        await self._write_files(home)
        root = (await self.machine.describe()).workdir.rstrip("/")
        base_url = self.line.session.base_url(self.port)
        environment = {
            "HOME": f"{root}/{home}",
            **self._env,
            "PI_CODING_AGENT_DIR": f"{root}/{home}",
            "PI_OFFLINE": "1",
            "PI_TELEMETRY": "0",
            "JITI_FS_CACHE": "false",  # it would leave our extension, compiled, in the machine's /tmp
            "PALMETTE_TOKEN": self.line.session.token,
            "PALMETTE_TOOLS": base_url.removesuffix("/v1") + "/tools",
        }
        process = await self.machine.open(self._arguments(f"{root}/{home}"), timeout=LIFE, env=environment)
        self._pi = PiProcess(process)
        await self._pi.ask("get_state", seconds=START_SECONDS)
        self.watch(self._listen(self._pi), "pi")
        self.watch(self._ping(self._pi), "ping")
        turns = self.setup.turns
        if turns and turns[-1].said.tool_calls:
            self._is_busy = True
            await self._pi.ask("prompt", seconds=START_SECONDS, message=GO_ON)

    def _arguments(self, home: str) -> list[str]:
        words = [*self._command, "--mode", "rpc", "--no-context-files", "--no-extensions", "--no-skills"]
        words += ["-e", f"{home}/palmette.js", "--model", f"palmette/{self._model}"]
        words += ["--session", f"{home}/conversation/session.jsonl"]
        if not self._own_tools:
            words.append("--no-builtin-tools")
        if self.setup.system_prompt is not None:
            words += ["--append-system-prompt", self.setup.system_prompt]
        return words

    async def _write_files(self, home: str) -> None:
        setup = self.setup
        models = {
            "providers": {
                "palmette": {
                    "baseUrl": self.line.session.base_url(self.port),
                    "api": "openai-completions",
                    "apiKey": "PALMETTE_TOKEN",  # the name of a variable: tokens are in no file
                    "compat": {"supportsDeveloperRole": False, "supportsReasoningEffort": False},
                    "models": [{"id": self._model, "contextWindow": self._context_window}],
                }
            }
        }
        no_retries = {"retry": {"enabled": False, "maxRetries": 0, "provider": {"maxRetries": 0}}}
        extension = (files("palmette.agents.harnesses") / "pi_extension.js").read_bytes()
        session = session_file(setup.turns, setup.results, cwd=".", model=self._model)
        for name, data in {
            "models.json": msgspec.json.encode(models),
            "settings.json": msgspec.json.encode(no_retries),
            "palmette.js": extension,
            "conversation/session.jsonl": session,  # pi moves what lies in the directory itself
        }.items():
            await self.machine.put(f"{home}/{name}", data, mode=0o600)

    async def stop(self) -> None:
        if self._pi is not None:
            await self._pi.stop(GRACE)

    async def _ping(self, pi: PiProcess) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            await pi.ask("get_state", seconds=PING_SECONDS)

    async def tools_changed(self) -> None:
        await super().tools_changed()
        # A message that is sent after this is answered with these tools.
        if not await self.line.tools_taken():
            raise HarnessHung("pi does not take up its agent's new tools")

    # --- what is said to it ------------------------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        pi = self._running()
        self._is_busy = True
        self.is_sent(text)
        # One command for both: a pi that has just become idle begins, one that is busy hears it before its next reply.
        await pi.ask("prompt", seconds=PING_SECONDS, message=text, streamingBehavior="steer")

    async def interrupt(self) -> None:
        if self._is_busy:
            self._is_interrupted = True
            await self._running().ask("abort", seconds=PING_SECONDS)

    def _running(self) -> PiProcess:
        if self._pi is None:
            raise HarnessError("pi is not running; enter the harness first")
        return self._pi

    # --- what it says ------------------------------------------------------------------------------------------------

    async def _listen(self, pi: PiProcess) -> None:
        while True:
            event = await pi.next()
            match event.get("type"):
                case "message_end":
                    await self._message_ended(cast("Json", event.get("message")))
                case "tool_execution_start":
                    call = ToolCall(
                        id=str(event.get("toolCallId")),
                        name=str(event.get("toolName")),
                        arguments=msgspec.json.encode(event.get("args")).decode(),
                    )
                    self._began[call.id] = (call, asyncio.get_running_loop().time())
                    self.tell(ToolBegan(call=call))
                case "tool_execution_end":
                    self._tool_ended(event)
                case "agent_end":
                    await self._run_ended(pi)
                case "extension_error":
                    raise HarnessError(f"pi's extension failed: {event.get('error')}")
                case _:
                    pass

    async def _message_ended(self, message: Json) -> None:
        if message.get("role") != "assistant":
            return
        calls = await self.caught_up()
        reason = message.get("stopReason")
        self._said = _text(message.get("content"))
        self._failed = str(message.get("errorMessage") or reason) if reason in {"error", "aborted"} else None
        for call in calls:
            self.turn(call)
        if self._failed is not None and not self._is_interrupted:
            raise self._failure(calls)

    def _tool_ended(self, event: Json) -> None:
        call, began = self._began.pop(str(event.get("toolCallId")))
        result = event.get("result")
        text = _text(cast("Json", result).get("content")) if isinstance(result, dict) else ""
        seconds = asyncio.get_running_loop().time() - began
        self.tell(ToolEnded(call=call, text=text, failed=event.get("isError") is True, seconds=seconds))

    async def _run_ended(self, pi: PiProcess) -> None:
        state = cast("Json", (await pi.ask("get_state", seconds=PING_SECONDS)).get("data", {}))
        if state.get("isStreaming") is True or state.get("pendingMessageCount"):
            return  # a message came in at the last moment, and it goes on
        self._is_busy = False
        if self._is_interrupted:
            self._is_interrupted = False
            self.tell(Settled(stop="interrupted"))
        else:
            self.tell(Settled(answer=self._said))

    def _failure(self, calls: Sequence[CallEnded]) -> Exception:
        """What lies behind a run that failed: the last call that did, or something of pi's own."""
        failed = [call for call in calls if call.turn is None]
        if failed:
            return error_of(failed[-1], self._model)
        return HarnessError(f"pi's run failed: {self._failed}")


def _text(content: object) -> str:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts: list[str] = []
    for part in cast("list[object]", content):
        if isinstance(part, dict):
            with contextlib.suppress(KeyError):
                parts.append(str(cast("Json", part)["text"]))
    return "".join(parts)
