"""A rubric is a weighted mean in stages, and never makes a zero of a judge that failed."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.benchmarks import CriterionScore, Rubric, Stage, Task, Transcript
from palmette.benchmarks.errors import EvaluatorError
from palmette.benchmarks.rubric import weighted_mean
from palmette.machines import Machine

TASK = Task(id="t", prompt="p")
SAID = Transcript(answer="a")


@dataclass(kw_only=True)
class Fixed:
    """Scores what it is told to, and counts how often it was asked."""

    name: str
    score: float = 1.0
    weight: float = 1.0
    raises: Exception | None = None
    asked: list[str] = field(default_factory=list[str])

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        self.asked.append(task.id)
        if self.raises is not None:
            raise self.raises
        return CriterionScore(name="own idea", score=self.score, weight=99.0)


@dataclass(kw_only=True)
class Deaf:
    name: str = "deaf"
    weight: float = 1.0

    async def evaluate(self, task: Task, transcript: Transcript, machine: Machine | None) -> CriterionScore:
        await asyncio.Event().wait()
        raise AssertionError


def score_lists() -> st.SearchStrategy[list[tuple[float, float]]]:
    weights = st.floats(1e-300, 1e300) | st.just(0.0)
    return st.lists(st.tuples(st.floats(0.0, 1.0), weights), min_size=1, max_size=8)


@given(score_lists())
def test_the_mean_stays_within_the_scores_that_have_weight(pairs: list[tuple[float, float]]) -> None:
    mean = weighted_mean([CriterionScore(name="c", score=score, weight=weight) for score, weight in pairs])
    weighed = [score for score, weight in pairs if weight > 0]
    if weighed:
        assert min(weighed) <= mean <= max(weighed)
    else:
        assert mean == 1.0


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.01, 100.0)), min_size=1, max_size=8))
async def test_the_reward_is_the_sum_of_weighed_scores_over_the_sum_of_weights(
    pairs: list[tuple[float, float]],
) -> None:
    rubric = Rubric([Fixed(name=str(place), score=s, weight=w) for place, (s, w) in enumerate(pairs)])
    scored = await rubric.judge(TASK, SAID, None)
    assert math.isclose(scored.reward, sum(s * w for s, w in pairs) / sum(w for _, w in pairs), abs_tol=1e-12)
    # The rubric's weights count, not those that a criterion wrote into its result.
    assert [(score.name, score.weight) for score in scored.scores] == [(str(i), w) for i, (_, w) in enumerate(pairs)]


async def test_a_stage_under_its_gate_makes_the_later_ones_zero_without_running_them() -> None:
    late = Fixed(name="late", weight=3.0)
    rubric = Rubric(stages=[Stage("first", [Fixed(name="early", score=0.4)], gate=0.5), Stage("second", [late])])
    scored = await rubric.judge(TASK, SAID, None)
    assert late.asked == []
    assert scored.reward == pytest.approx(0.4 * 1 / 4)
    assert scored.scores[1].score == 0.0
    assert "under its gate of 0.5" in scored.scores[1].reason


async def test_a_stage_that_reaches_its_gate_exactly_lets_the_next_one_run() -> None:
    late = Fixed(name="late")
    rubric = Rubric(stages=[Stage("first", [Fixed(name="early", score=0.5)], gate=0.5), Stage("second", [late])])
    assert (await rubric.judge(TASK, SAID, None)).reward == pytest.approx(0.75)
    assert late.asked == ["t"]


async def test_what_a_criterion_raises_comes_out_with_its_name() -> None:
    rubric = Rubric([Fixed(name="fine"), Fixed(name="broken", raises=OSError("the judge is out"))])
    with pytest.raises(OSError, match="the judge is out") as caught:
        await rubric.judge(TASK, SAID, None)
    assert caught.value.__notes__ == ["raised by criterion 'broken'"]


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1])
async def test_a_score_out_of_range_is_an_evaluators_error(score: float) -> None:
    with pytest.raises(EvaluatorError, match="'odd' scored"):
        await Rubric([Fixed(name="odd", score=score)]).judge(TASK, SAID, None)


async def test_a_criterion_that_gives_no_verdict_times_out_by_name() -> None:
    with pytest.raises(TimeoutError, match=r"'deaf' gave no verdict in 0\.01 s"):
        await Rubric([Deaf()], timeout=0.01).judge(TASK, SAID, None)


async def test_a_timeout_of_the_criterions_own_keeps_its_text() -> None:
    with pytest.raises(TimeoutError, match="model is slow"):
        await Rubric([Fixed(name="judge", raises=TimeoutError("model is slow"))]).judge(TASK, SAID, None)


async def test_cancelling_a_judgement_cancels_it() -> None:
    judging = asyncio.create_task(Rubric([Deaf()]).judge(TASK, SAID, None))
    await asyncio.sleep(0)
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging


def test_a_rubric_that_makes_no_sense_is_refused_at_once() -> None:
    one = Fixed(name="one")
    with pytest.raises(ValueError, match="no criteria"):
        Rubric()
    with pytest.raises(ValueError, match="not both"):
        Rubric([one], stages=[Stage("s", [one])])
    with pytest.raises(ValueError, match="two criteria are named 'one'"):
        Rubric([one, Fixed(name="one")])
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight of 'bad'"):
            Rubric([Fixed(name="bad", weight=weight)])
    with pytest.raises(ValueError, match="all weights are 0"):
        Rubric([Fixed(name="none", weight=0.0)])
    with pytest.raises(ValueError, match="gate of stage 's'"):
        Stage("s", [one], gate=1.5)
