"""trail: solvable by reading, not by guessing; the same on every machine; its splits apart."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trail_rollouts import DictMachine

from palmette.agents.errors import ToolFailed
from palmette.agents.react import react
from palmette.agents.scripted import ScriptedClient
from palmette.benchmarks.benchmark import Benchmark
from palmette.benchmarks.errors import BadOption
from palmette.benchmarks.outcomes import Scored
from palmette.benchmarks.suites.trail import HOPS, TURNS, Trail, demonstrations
from palmette.benchmarks.task import Task

SUITE: Benchmark = Trail(count=40)  # the assignment is a test too, for the type checker


async def solved(suite: Benchmark, task: Task, replies: list[str]) -> Scored:
    machine = cast(Any, DictMachine(task.files))
    session = ScriptedClient(lambda _: replies).session(task.id, seed=0)
    transcript = await react(
        task.prompt, session, suite.tools(task.public(), machine), dialect=suite.dialect, turns=task.turns
    )
    return await suite.rubric(task).judge(task, transcript, machine)


async def test_the_reference_solver_scores_everywhere_in_four_of_five_turns() -> None:
    for task in SUITE.tasks():
        replies = list(SUITE.replies(task, "reference"))
        assert len(replies) == HOPS + 1 == 4
        assert task.turns == TURNS == 5
        assert (await solved(SUITE, task, replies)).reward == 1.0


async def test_a_wrong_code_no_answer_and_one_too_late_score_nothing() -> None:
    task = SUITE.tasks()[0]
    right = list(SUITE.replies(task, "reference"))
    wrong = f"done {(int(right[-1][-1]) + 1) % 10}"
    assert (await solved(SUITE, task, [wrong])).reward == 0.0
    assert (await solved(SUITE, task, [])).reward == 0.0
    assert (await solved(SUITE, task, ["read 0"] * 5 + right)).reward == 0.0
    assert (await solved(SUITE, task, ["read 0", *right])).reward == 1.0  # one detour is allowed


@settings(deadline=None, max_examples=30)
@given(st.integers(-(2**40), 2**40), st.sampled_from(["train", "test"]), st.integers(1, 30))
def test_tasks_are_well_formed_and_do_not_depend_on_the_count(seed: int, split: Any, count: int) -> None:
    tasks = Trail(count=count, seed=seed, split=split).tasks()
    assert tasks == Trail(count=30, seed=seed, split=split).tasks()[:count]
    assert len({task.id for task in tasks}) == count
    for task in tasks:
        assert sorted(task.files) == list("0123456789")
        lines = [task.prompt, *(data.decode().strip() for data in task.files.values())]
        assert {len(line) for line in lines} == {6}
        assert all(line[:5] in ("find ", "goto ", "code ") and line[5].isdigit() for line in lines)
        assert task.grader.answer not in ("", None)


def test_the_splits_share_no_task() -> None:
    train = {tuple(task.files.items()) for seed in range(3) for task in Trail(300, seed, "train").tasks()}
    test = {tuple(task.files.items()) for seed in range(3) for task in Trail(300, seed, "test").tasks()}
    assert len(train) == len(test) == 900
    assert not train & test


async def test_the_tool_reads_the_machine_and_nothing_but_the_tasks_files() -> None:
    task = SUITE.tasks()[0]
    machine = DictMachine({**task.files, "3": b"goto 9\n", "/etc/passwd": b"secret"})
    (read,) = SUITE.tools(task.public(), cast(Any, machine))
    assert await read.run('{"name": "3"}') == "goto 9"
    for name in ("/etc/passwd", "../3", "33", ""):
        with pytest.raises(ToolFailed, match="none 0"):
            await read.run(f'{{"name": "{name}"}}')
    with pytest.raises(ValueError, match="files are in a machine"):
        SUITE.tools(task, None)


def test_nothing_public_tells_the_answer_apart() -> None:
    """A code in a file is the answer no more often than chance says: off the way there are codes too."""
    tasks = Trail(400).tasks()
    codes = sum(line.startswith(b"code") for task in tasks for line in task.files.values())
    assert 3.5 < codes / len(tasks) < 5.5
    assert all(count > 15 for count in Counter(task.grader.answer for task in tasks).values())
    assert tasks[0].public().grader.answer == ""


def test_demonstrations_earn_a_quarter_and_obey_the_rules() -> None:
    count = 3000
    tasks = Trail(count, seed=4, split="train").tasks()
    earned = 0
    for index, conversation in enumerate(demonstrations(count, seed=4)):
        said = [message.content for message in conversation if message.role == "assistant"]
        assert conversation[0].content == tasks[index].prompt
        assert conversation[-1].role == "assistant"
        assert 1 <= len(said) <= TURNS
        assert all(len(line) == 6 for line in said)
        earned += said[-1] == f"done {tasks[index].grader.answer}"
    assert 0.20 < earned / count < 0.28
    assert demonstrations(5, seed=4) == demonstrations(count, seed=4)[:5] != demonstrations(5, seed=5)


def test_unknown_options_and_recordings_are_named() -> None:
    with pytest.raises(BadOption, match="0"):
        Trail(count=0)
    with pytest.raises(BadOption, match=r"'dev'.*train, test"):
        Trail(split=cast(Any, "dev"))
    with pytest.raises(KeyError, match="reference"):
        SUITE.replies(SUITE.tasks()[0], "gpt")
