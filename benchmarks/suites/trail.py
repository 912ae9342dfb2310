"""trail: follow signs from file to file and report the code at the end. Generated; needs no download.

A machine holds ten one-line files, named ``0`` to ``9``. The agent is told ``find 3``, and has five replies::

    user        find 3
    assistant   read 3
    tool        goto 7
    assistant   read 7
    tool        goto 1
    assistant   read 1
    tool        code 4
    assistant   done 4          reward 1 iff this is the code: a guess is right one time in ten

It is the smallest task with the shape of real agent work: several turns, a tool whose answers matter, a reward at the
end only, and a lazy way out that has to be unlearned. Every line is six characters long, and names and codes share one
alphabet, so a single attention head that copies from a fixed distance can solve it: a model of 116,000 parameters
learns it in seconds.

Tasks of the ``train`` and ``test`` splits are disjoint whatever their seeds: a task belongs to the split that a
checksum of its files says.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from palmette.agents.conversation import Message
from palmette.agents.errors import ToolFailed
from palmette.benchmarks.criteria import Exact
from palmette.benchmarks.errors import BadOption, UnknownRecording
from palmette.benchmarks.rubric import Rubric
from palmette.benchmarks.task import GraderData, Task
from palmette.machines.contract import Machine

if TYPE_CHECKING:
    from palmette.agents.tools import Tool
    from palmette.benchmarks.benchmark import Dialect

Split = Literal["train", "test"]

HOPS = 3
"""Files to read on the way; one reply more for the answer."""
TURNS = 5
"""Replies allowed: one more than needed."""
_NAMES = "0123456789"
_SPLITS: tuple[Split, Split] = ("train", "test")


class Trail:
    """The benchmark: ``count`` tasks of ``split``. Task *i* of a seed is the same whatever the count."""

    name = "trail"
    needs_machine = True
    dialect: Dialect = "line"

    def __init__(self, count: int = 512, seed: int = 0, split: Split = "test") -> None:
        """Nothing is generated before it is asked for.

        Raises:
            BadOption: ``count`` is below 1, or there is no such split.
        """
        if count < 1:
            raise BadOption(f"trail needs a count of at least 1, got {count}")
        if split not in _SPLITS:
            raise BadOption(f"trail has no split {split!r}; there are: train, test")
        self.count = count
        self.seed = seed
        self.split: Split = split
        self._rubric = Rubric([Exact(name="code")])

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def rubric(self, task: Task) -> Rubric:
        return self._rubric

    def tools(self, task: Task, machine: Machine | None) -> Sequence[Tool]:
        """``read``: the line in a file of the machine.

        Raises:
            ValueError: there is no machine.
        """
        if machine is None:
            raise ValueError("trail's files are in a machine; give the episode one (--machine local)")
        from palmette.agents.tools import tool

        async def read(name: str) -> str:
            """Read a file.

            Args:
                name: One digit.
            """
            # The name is the model's: what is no file of the task never reaches the machine.
            if name not in task.files:
                raise ToolFailed("none 0")  # as long as every other line
            return (await machine.get(name, max_bytes=4096)).decode("utf-8", "replace").strip()

        return (tool(read),)

    def replies(self, task: Task, field: str) -> Sequence[str]:
        """The way from sign to sign for ``"reference"``; nothing else is recorded.

        Raises:
            UnknownRecording: any other field (it is a KeyError too).
        """
        if field != "reference":
            raise UnknownRecording(self.name, field, ["reference"])
        way, name = list[str](), task.prompt.removeprefix("find ")
        while True:
            word, argument = task.files[name].decode().split()
            way.append(f"read {name}")
            if word == "code":
                return (*way, f"done {argument}")
            name = argument

    @cached_property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(_task(self.seed, self.split, index) for index in range(self.count))


def demonstrations(count: int, seed: int = 0, *, guess: float = 0.4, wander: float = 0.1) -> list[list[Message]]:
    """``count`` conversations on training tasks, by a demonstrator who knows the words but is careless.

    While it has seen no code it gives up, at every reply, with probability ``guess`` and answers at random; when it
    reads on, it opens a random file instead of the right one with probability ``wander``. It earns about 0.25: a warm
    start that leaves almost everything to be learned.
    """
    conversations: list[list[Message]] = []
    for index in range(count):
        draw = random.Random(f"trail/demonstration/{seed}/{index}")
        task = _task(seed, "train", index)
        conversation = [Message(role="user", content=task.prompt)]
        line = task.prompt
        for _ in range(TURNS):
            word, argument = line.split()
            if word == "code":
                reply = f"done {argument}"
            elif draw.random() < guess:
                reply = f"done {draw.choice(_NAMES)}"
            else:
                reply = f"read {draw.choice(_NAMES) if draw.random() < wander else argument}"
            conversation.append(Message(role="assistant", content=reply))
            if reply.startswith("done"):
                break
            line = task.files[reply.removeprefix("read ")].decode().strip()
            conversation.append(Message(role="tool", content=line))
        if conversation[-1].role == "tool":
            conversation.pop()  # the allowance is used up; nobody hears this line
        conversations.append(conversation)
    return conversations


def _task(seed: int, split: Split, index: int) -> Task:
    """Draw until the files' checksum falls into ``split``: two draws on average, and the splits cannot overlap."""
    draw = random.Random(f"trail/{split}/{seed}/{index}")
    while True:
        way = draw.sample(_NAMES, HOPS)
        code = draw.choice(_NAMES)
        # Off the way lie signs and codes of the same kind: what a file says cannot be told from where it is.
        lines = {name: f"{draw.choice(('goto', 'code'))} {draw.choice(_NAMES)}" for name in _NAMES}
        for here, there in itertools.pairwise(way):
            lines[here] = f"goto {there}"
        lines[way[-1]] = f"code {code}"
        files = {name: f"{line}\n".encode() for name, line in lines.items()}
        if _SPLITS[zlib.crc32(b"".join(files.values())) & 1] == split:
            return Task(
                id=f"trail-{split}-{seed}-{index}",
                prompt=f"find {way[0]}",
                files=files,
                turns=TURNS,
                grader=GraderData(answer=code),
            )
