"""The order, the words and the colours of the seven outcomes, on every surface that shows them."""

from __future__ import annotations

from typing import NamedTuple

from palmette.benchmarks.outcomes import Tally


class OutcomeLook(NamedTuple):
    """How one kind of outcome is shown."""

    kind: str
    """The outcome's tag, also the field's name in :class:`Tally`."""
    label: str
    meaning: str
    style: str
    """A rich style. Reports name their colours in the template's style sheet, by ``kind``."""


OUTCOMES = (
    OutcomeLook("scored", "scored", "judged; the only outcome with a reward", "green"),
    OutcomeLook("truncated", "truncated", "ended by a limit of the harness", "yellow"),
    OutcomeLook("agent_failed", "agent failed", "it crashed beyond its restart budget, or broke its machine", "red"),
    OutcomeLook("infra_failed", "infra failed", "machine, model endpoint or node lost", "magenta"),
    OutcomeLook("judge_failed", "judge failed", "an evaluator crashed or could not be reached", "blue"),
    OutcomeLook("stale", "stale", "sampled by a policy too old to learn from", "cyan"),
    OutcomeLook("cancelled", "cancelled", "called off", "bright_black"),
)


def counts(tally: Tally) -> list[tuple[OutcomeLook, int]]:
    """Every kind of outcome with its count, in the order in which people are shown them."""
    return [(look, int(getattr(tally, look.kind))) for look in OUTCOMES]
