"""A benchmark of one's own: tasks with hidden tests, a tool, a rubric; played, judged and kept.

    python examples/own_benchmark.py

Three tasks ask for a shell command that produces a given output. The agent has a tool ``sh`` that runs commands in its
machine; the rubric looks into the same machine afterwards. A scripted model stands in for a real one: it solves the
first task, gets the second one wrong, and for the third kills its own machine, which is an infrastructure failure and
not a zero.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from palmette.actors import System
from palmette.agents.conversation import Completion, Message, ToolCall
from palmette.agents.scripted import ScriptedClient
from palmette.agents.tools import Tool, tool
from palmette.benchmarks.benchmark import Dialect
from palmette.benchmarks.criteria import FileCheck
from palmette.benchmarks.episode import EpisodeRequest
from palmette.benchmarks.journal import JournalStore
from palmette.benchmarks.outcomes import kind
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.run import Prepared, RunConfig, run_tree
from palmette.benchmarks.task import GraderData, Task
from palmette.machines import Machine


class Shell:
    """Write a file called ``out`` with the right line in it."""

    name = "shell"
    needs_machine = True
    dialect: Dialect = "native"

    def tasks(self) -> Sequence[Task]:
        return [
            Task(id=word, prompt=f"Write {word!r} into the file 'out'.", grader=GraderData(answer=f"{word}\n"))
            for word in ("hello", "world", "crash")
        ]

    def rubric(self, task: Task) -> Rubric:
        return Rubric([FileCheck(path="out", content=task.grader.answer.encode())])

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        assert machine is not None

        async def sh(command: str) -> str:
            """Run a command in the machine.

            Args:
                command: For ``sh -c``.
            """
            result = await machine.exec(command, timeout=10.0)
            return f"exit code {result.exit_code}\n{result.text}"

        return [tool(sh)]

    def replies(self, task: Task, field: str) -> Sequence[str]:
        raise KeyError(f"{self.name} has no recording {field!r}")


def sh(command: str) -> Completion:
    """A model's reply that calls the tool."""
    import json

    call = ToolCall(id="1", name="sh", arguments=json.dumps({"command": command}))
    return Completion(message=Message(role="assistant", content="", tool_calls=(call,)), stop="tool_calls")


SCRIPT = {
    "hello": [sh("echo hello > out"), "Done."],
    "world": [sh("echo wrold > out"), "Done."],
    "crash": [sh("rm -rf $PWD; kill -9 $$"), "Done."],
}


async def main() -> None:
    benchmark = Shell()
    plan = tuple(EpisodeRequest(task=task.id) for task in benchmark.tasks())
    prepared = Prepared(
        config=RunConfig(benchmark="shell", agent="scripted", concurrency=3),
        benchmark=benchmark,
        client=ScriptedClient(lambda task_id: SCRIPT[task_id], name="scripted"),
        plan=plan,
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = f"sqlite:///{Path(folder) / 'runs.db'}"
        with JournalStore(journal) as store:
            run = store.create_run("shell", {"agent": "scripted"}).id
        async with System.start(run_tree(prepared, run=run, journal=journal)) as system:
            await system.wait_ended()
        with JournalStore(journal) as store:
            for ended in store.episodes(run):
                print(f"{ended.task:6} {kind(ended.outcome):13} {getattr(ended.outcome, 'reward', '')}")
            tally = store.tally(run)
            print(f"requested {tally.requested} = {tally.scored} scored + {tally.infra_failed} infra failed")


if __name__ == "__main__":
    asyncio.run(main())
