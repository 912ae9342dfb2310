"""`palmette demo` in small: two steps are not enough to learn, and the command says so."""

from __future__ import annotations

import msgspec
import pytest
from support.command_line import CommandLine

from palmette.benchmarks.journal import Run
from palmette.benchmarks.outcomes import Tally
from palmette.console.commands.demo import check
from palmette.console.failures import DemoFailed
from palmette.console.report_data import TrainingRows
from palmette.console.summary import Summary


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_demo_that_did_not_learn_enough_shows_everything_and_fails(command_line: CommandLine) -> None:
    pytest.importorskip("trl")
    out, err = command_line.run("demo", "--steps", "2", "--eval-episodes", "32", code=1, seconds=200)
    assert "mean reward by step" in out
    assert "held-out success" in out
    assert "192 requested = 192 scored" in out
    assert "128 training rows of 128 scored training episodes; none from an episode that was not scored" in out
    for child in ("agent", "machine", "policy", "trainer"):
        assert child in out, f"the {child} was killed, and is told among the restarts"
    assert "below 90%" in err
    assert command_line.leftovers() == []
    run = str(command_line.run_id())
    command_line.run("report", run)
    page = (command_line.folder / f"palmette-{run}.html").read_text()
    assert "No training row came from an episode that was not Scored." in page
    assert "trainer restarted" in page


def summary(**changes: object) -> Summary:
    good = Summary(
        run=Run(id="r", created=0.0, benchmark="trail", config={"kind": "train"}, status="completed"),
        kind="train", state="completed", tally=Tally(scored=10, reward_sum=5.0), planned=10, full_marks=5,
        restarts=(), seconds=1.0, before=Tally(scored=4, reward_sum=1.0), after=Tally(scored=4, reward_sum=4.0),
        rows=TrainingRows(scored=2, used=2),
    )  # fmt: skip
    return msgspec.structs.replace(good, **changes)


def test_a_demo_that_learned_with_honest_sums_is_good() -> None:
    check(summary())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"planned": 11}, "11 episodes were asked for and 10 ended"),
        ({"planned": 9}, "9 episodes were asked for and 10 ended"),
        ({"after": Tally(scored=3, infra_failed=1, reward_sum=3.0)}, "75.0%"),
        ({"after": None}, "did not all end"),
        ({"rows": TrainingRows(scored=2, used=3, not_scored=1)}, "1 training rows came from"),
    ],
)
def test_a_demo_that_shows_something_else_has_failed(changes: dict[str, object], told: str) -> None:
    with pytest.raises(DemoFailed, match=told):
        check(summary(**changes))
