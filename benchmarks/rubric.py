"""A rubric turns the verdicts of several criteria into one reward.

The reward is the weighted mean, ``sum(score · weight) / sum(weight)``. Criteria may stand in *stages* that are judged
in order; a stage may have a *gate*, and when its own weighted mean is under it the later stages are not run at all:
their criteria count as 0 with their full weight, so that a cheap first stage ("does it compile?") guards an expensive
one. A skipped criterion says so in its reason; it is a rule of the rubric that made it 0, not a failure to judge.

>>> from palmette.benchmarks.criteria import Exact
>>> rubric = Rubric(stages=[Stage("format", [Exact(name="says ok", expected="ok")], gate=1.0)])
>>> [stage.name for stage in rubric.stages]
['format']
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence

import msgspec

from palmette.benchmarks.errors import EvaluatorError
from palmette.benchmarks.outcomes import CriterionScore, Scored
from palmette.benchmarks.task import Criterion, Task, Transcript
from palmette.machines.contract import Machine


class Stage:
    """Criteria that are judged together, and the score under which the stages after them are skipped."""

    def __init__(self, name: str, criteria: Iterable[Criterion], gate: float | None = None) -> None:
        """``gate`` is between 0 and 1 and is passed by a score equal to it; ``None`` lets everything through.

        Raises:
            ValueError: no criteria, or a gate out of range.
        """
        self.name = name
        self.criteria: tuple[Criterion, ...] = tuple(criteria)
        self.gate = gate
        if not self.criteria:
            raise ValueError(f"stage {name!r} has no criteria; give it at least one, or leave the stage out")
        if gate is not None and not 0.0 <= gate <= 1.0:
            raise ValueError(f"the gate of stage {name!r} must be between 0 and 1, got {gate}")


class Rubric:
    """Judges an episode; see the module's text for the arithmetic. Holds no state: share it between episodes."""

    def __init__(
        self, criteria: Iterable[Criterion] = (), *, stages: Iterable[Stage] = (), timeout: float = 300.0
    ) -> None:
        """Give ``criteria`` (one stage without a gate) or ``stages``; ``timeout`` is in seconds per criterion.

        Raises:
            ValueError: nothing to judge by, both forms at once, two criteria with one name, a negative or infinite
                weight, or weights that sum to 0.
        """
        plain, staged = tuple(criteria), tuple(stages)
        if plain and staged:
            raise ValueError("give criteria or stages, not both; put the criteria into a Stage of their own")
        self.stages: tuple[Stage, ...] = staged or (Stage("criteria", plain),)
        self.timeout = timeout
        names: set[str] = set()
        for criterion in self.criteria:
            if criterion.name in names:
                raise ValueError(f"two criteria are named {criterion.name!r}; give each its own name")
            names.add(criterion.name)
            if not (criterion.weight >= 0.0 and math.isfinite(criterion.weight)):
                raise ValueError(f"the weight of {criterion.name!r} must be finite and >= 0, got {criterion.weight}")
        if not math.fsum(criterion.weight for criterion in self.criteria) > 0.0:
            raise ValueError("all weights are 0; give at least one criterion a weight above 0")

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """All criteria, in the order in which they are judged."""
        return tuple(criterion for stage in self.stages for criterion in stage.criteria)

    async def judge(self, task: Task, transcript: Transcript, machine: Machine | None) -> Scored:
        """Evaluate one criterion after another, in ``machine`` if there is one.

        Raises:
            TimeoutError: a criterion gave no verdict in time.
            EvaluatorError: a criterion returned a score that is not between 0 and 1.
            Exception: whatever a criterion raises, with a note that names it. None of these is a zero.
        """
        scores: list[CriterionScore] = []
        closed = ""
        for stage in self.stages:
            if closed:
                scores.extend(
                    CriterionScore(name=criterion.name, score=0.0, weight=criterion.weight, reason=closed)
                    for criterion in stage.criteria
                )
                continue
            judged = [await self._verdict(criterion, task, transcript, machine) for criterion in stage.criteria]
            scores.extend(judged)
            reached = weighted_mean(judged)
            if stage.gate is not None and reached < stage.gate:
                closed = f"skipped: stage {stage.name!r} scored {reached:g}, under its gate of {stage.gate:g}"
        return Scored(reward=weighted_mean(scores), scores=tuple(scores))

    async def _verdict(
        self, criterion: Criterion, task: Task, transcript: Transcript, machine: Machine | None
    ) -> CriterionScore:
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                score = await criterion.evaluate(task, transcript, machine)
        except TimeoutError as error:
            if deadline.expired():
                raise TimeoutError(f"criterion {criterion.name!r} gave no verdict in {self.timeout:g} s") from error
            error.add_note(f"raised by criterion {criterion.name!r}")
            raise
        except Exception as error:
            error.add_note(f"raised by criterion {criterion.name!r}")
            raise
        if not 0.0 <= score.score <= 1.0:  # also refuses NaN
            raise EvaluatorError(f"criterion {criterion.name!r} scored {score.score}; a score must lie between 0 and 1")
        # The rubric's own name and weight are the ones the arithmetic uses, whatever the criterion filled in.
        return msgspec.structs.replace(score, name=criterion.name, weight=criterion.weight)


def weighted_mean(scores: Sequence[CriterionScore]) -> float:
    """``sum(score · weight) / sum(weight)``; 1 when no score has any weight (nothing was asked for).

    Never outside the span of the scores, whatever the rounding.
    """
    weighed = [score for score in scores if score.weight > 0.0]
    if not weighed:
        return 1.0
    # Divided by the largest weight first, so that neither huge nor tiny weights overflow or vanish.
    largest = max(score.weight for score in weighed)
    total = math.fsum(score.weight / largest for score in weighed)
    mean = math.fsum(score.score * (score.weight / largest) for score in weighed) / total
    return min(max(mean, min(score.score for score in weighed)), max(score.score for score in weighed))
