"""The harness ``cli:COMMAND``: any program that speaks OpenAI, run once for each message.

The program finds the model in ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` (a token, good for this session only), the
message on its standard input and in ``{message}``, and the system prompt in ``PALMETTE_SYSTEM_PROMPT``. What it prints
is the answer; each of its calls of the model is a turn. What it knows from one message to the next it keeps itself, on
its machine.

>>> factory = cli_harness(proxy, "my-agent --quiet")
>>> factory = cli_harness(proxy, ["my-agent", "--ask", "{message}"])
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence

from palmette.actors import Ref
from palmette.agents.errors import ConfigurationError
from palmette.agents.harness import Harness, HarnessFactory, HarnessSetup, Settled
from palmette.agents.harnesses.errors import HarnessDied
from palmette.agents.harnesses.program import ProgramHarness, end_of, error_of
from palmette.agents.proxy import CallEnded, Proxy
from palmette.machines import Process

_MAX_ANSWER = 1 << 20


def cli_harness(
    proxy: Ref[Proxy],
    command: str | Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 1800.0,
) -> HarnessFactory:
    """A factory of harnesses that run ``command``.

    Args:
        proxy: Through which it reaches its model.
        command: What to run; ``{message}`` in a word stands for the message.
        env: What it needs besides.
        seconds: Deadline of one run; one that is cut short by it is told as truncated.

    Raises:
        ConfigurationError: there is no command.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    if not words:
        raise ConfigurationError("cli: needs a command after it, as in cli:my-agent")

    def make(setup: HarnessSetup) -> Harness:
        return CliHarness(setup, proxy, words, env or {}, seconds)

    return make


class CliHarness(ProgramHarness):
    """Made by :func:`cli_harness`."""

    def __init__(
        self, setup: HarnessSetup, proxy: Ref[Proxy], words: Sequence[str], env: Mapping[str, str], seconds: float
    ) -> None:
        super().__init__(setup, proxy)
        self._words = words
        self._env = env
        self._seconds = seconds
        self._inbox: asyncio.Queue[str] = asyncio.Queue()
        self._process: Process | None = None
        self._is_interrupted = False
        self._last_call: CallEnded | None = None

    async def start(self) -> None:
        self.watch(self._work(), "runs")

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.kill()
            await self._process.wait()

    def called(self, call: CallEnded) -> None:
        self._last_call = call
        self.turn(call)

    async def send(self, text: str) -> None:
        self._inbox.put_nowait(text)

    async def interrupt(self) -> None:
        if self._process is not None:
            self._is_interrupted = True
            await self._process.kill()

    async def _work(self) -> None:
        while True:
            text = await self._inbox.get()
            await self.setup.may_go_on.wait()
            self.tell(await self._run(text))

    async def _run(self, text: str) -> Settled:
        self._is_interrupted = False
        self._last_call = None
        setup = self.setup
        environment = {**self._env, **self.line.environment(self.port), "PALMETTE_AGENT": setup.name}
        if setup.system_prompt is not None:
            environment["PALMETTE_SYSTEM_PROMPT"] = setup.system_prompt
        if setup.model:
            environment["OPENAI_MODEL"] = setup.model
        self.is_sent(text)
        self._process = process = await self.machine.open(
            [word.replace("{message}", text) for word in self._words], timeout=self._seconds, env=environment
        )
        feeding = asyncio.create_task(_feed(process, text.encode()))
        try:
            printed, said = await self._listen(process)
            result = await process.wait()
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
        self._process = None
        await self.caught_up()
        if self._is_interrupted:
            return Settled(stop="interrupted")
        if result.timed_out:
            return Settled(stop="truncated", reason=f"seconds: {self._seconds:g}")
        if result.ok:
            return Settled(answer=printed.decode("utf-8", "replace").strip())
        last = self._last_call
        if last is not None and last.turn is None and last.status != 499:
            raise error_of(last, setup.model)  # the last that it heard, and so the likely reason
        raise HarnessDied(f"{self._words[0]!r} {await end_of(process, said)}")

    @staticmethod
    async def _listen(process: Process) -> tuple[bytes, bytes]:
        """What it prints, to the end."""
        printed, said = b"", b""
        while (piece := await process.read()) is not None:
            if piece[0] == "stdout":
                printed = (printed + piece[1])[:_MAX_ANSWER]
            else:
                said = (said + piece[1])[-_MAX_ANSWER:]
        return printed, said


async def _feed(process: Process, data: bytes) -> None:
    try:
        await process.write(data)
        await process.close_stdin()
    except BrokenPipeError:
        return  # it does not read its input, as is its right
