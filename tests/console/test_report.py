from __future__ import annotations

import doctest
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.benchmarks.outcomes import Tally
from palmette.console import report
from palmette.console.charts import HEIGHT, WIDTH
from palmette.console.palette import OUTCOMES
from palmette.console.report import render_report
from palmette.console.report_data import (
    FailedEpisode,
    HeldOut,
    Mark,
    ReportData,
    RewardPoint,
    RunFacts,
    Training,
    TrainingRows,
)
from palmette.console.snapshot import RestartCount

VOID = {"meta", "line", "path", "circle", "polyline", "rect", "br", "i"}
RUN = RunFacts(run_id="k3", benchmark="trail", agent="react")


class Page(HTMLParser):
    """Reads a page back: its text, its tags, and whether what is opened is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


texts = st.text(max_size=40) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x>', "&amp;", "\x1b[2J", "$body"]
)
counts = st.integers(0, 10**6)
points = st.lists(
    st.builds(RewardPoint, step=counts, mean=st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")), scored=counts),
    max_size=30,
).map(tuple)
reports = st.builds(
    ReportData,
    run=st.builds(RunFacts, run_id=texts, benchmark=texts, agent=texts, model=texts, command=texts,
                  started=st.none() | st.floats(0, 4e9), seconds=st.none() | st.floats(0, 1e7)),
    tally=st.builds(Tally, **{look.kind: counts for look in OUTCOMES}),
    planned=st.none() | counts,
    rewards=st.lists(st.floats(-100, 100), max_size=60).map(tuple),
    training=st.none() | st.builds(
        Training, steps=counts, points=points,
        marks=st.lists(st.builds(Mark, step=counts, label=texts), max_size=4).map(tuple),
        held_out=st.none() | st.builds(HeldOut, episodes=counts, before=st.none() | st.floats(0, 1)),
        rows=st.none() | st.builds(TrainingRows, scored=counts, used=counts, not_scored=counts),
    ),
    restarts=st.lists(st.builds(RestartCount, supervisor=texts, child=texts, count=counts, last_reason=texts),
                      max_size=5).map(tuple),
    failed=st.lists(st.builds(FailedEpisode, task=texts, outcome=texts, reason=texts), max_size=5).map(tuple),
)  # fmt: skip


@given(reports)
def test_any_data_makes_a_well_formed_page_that_loads_nothing(data: ReportData) -> None:
    source = render_report(data)
    page = Page(source)
    assert page.open == []
    source.encode()
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    assert not any(name in {"href", "src", "xlink:href"} or name.startswith("on") for _, a in page.tags for name in a)
    assert "url(" not in source.partition("</style>")[0]
    assert "@import" not in source
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", source)


@given(reports)
def test_everything_in_a_chart_lies_inside_it(data: ReportData) -> None:
    for tag, attributes in Page(render_report(data)).tags:
        if tag in {"circle", "line", "rect"}:
            for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy"):
                if (value := attributes.get(name)) is not None:
                    assert 0 <= float(value) <= (WIDTH if "x" in name else HEIGHT)


@given(reports)
def test_requested_is_the_sum_on_the_page(data: ReportData) -> None:
    equation = re.search(r'<p class="equation">(.*? requested = .*?)</p>', render_report(data))
    assert equation
    requested, *terms = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+)(?:</b>)? [a-z]", equation[1])]
    assert requested == sum(terms) == max(data.tally.requested, data.planned or 0)
    assert len(terms) in (7, 8)


def test_text_from_agents_is_shown_and_never_run() -> None:
    failed = FailedEpisode(task="t<1>", outcome="agent_failed", reason="<script>alert(1)</script> & more")
    source = render_report(ReportData(run=RUN, tally=Tally(agent_failed=1), failed=(failed,)))
    assert "<script" not in source
    assert "<script>alert(1)</script> & more" in Page(source).text
    assert "t<1>" in Page(source).text


def test_an_interrupted_run_counts_what_has_not_ended() -> None:
    text = Page(render_report(ReportData(run=RUN, tally=Tally(scored=100, reward_sum=50), planned=164))).text
    assert "164 requested = 100 scored" in text
    assert "+ 64 not yet ended" in text


def test_a_training_run_shows_before_and_after_and_its_curve() -> None:
    training = Training(
        steps=3,
        points=(
            RewardPoint(step=1, mean=0.2),
            RewardPoint(step=2, mean=None),
            RewardPoint(step=3, mean=0.9, scored=62),
        ),
        marks=(Mark(step=2, label="trainer killed"),),
        held_out=HeldOut(episodes=512, before=0.236, after=0.949),
        rows=TrainingRows(scored=186, used=180),
    )
    source = render_report(ReportData(run=RUN, tally=Tally(scored=698), training=training))
    text = Page(source).text
    assert "23.6% → 94.9%" in text
    assert "186 scored = 180 used as training rows + 6 left out" in text
    assert "No training row came from an episode that was not Scored." in text
    assert "step 3: 0.900 over 62 scored" in text
    assert text.count("trainer killed") == 2
    assert source.count("<circle") == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (TrainingRows(scored=10, used=9, not_scored=1), "1 training row came from an episode that was not Scored"),
        (TrainingRows(scored=10, used=12), "2 rows more than there are scored episodes"),
    ],
)
def test_rows_that_cannot_be_right_are_called_out(rows: TrainingRows, words: str) -> None:
    training = Training(steps=1, points=(RewardPoint(step=1, mean=0.5),), rows=rows)
    source = render_report(ReportData(run=RUN, tally=Tally(scored=10), training=training))
    assert words in Page(source).text
    assert 'class="verdict bad"' in source
    assert 'class="verdict good"' not in source


def test_an_evaluation_draws_a_distribution_only_where_there_is_one() -> None:
    binary = render_report(ReportData(run=RUN, tally=Tally(scored=4), rewards=(1.0, 0.0, 1.0, 1.0)))
    graded = render_report(ReportData(run=RUN, tally=Tally(scored=4), rewards=(1.0, 0.0, 0.3, 0.8)))
    assert "Distribution" not in binary
    assert "0.750" in Page(binary).text
    assert graded.count('<rect class="bar"') == 20


def test_restarts_are_grouped_by_supervisor_and_added_up() -> None:
    restarts = (
        RestartCount(supervisor="run", child="trainer", count=1, last_reason="Killed (signal 9)"),
        RestartCount(supervisor="episodes", child="machine", count=11),
        RestartCount(supervisor="episodes", child="agent", count=52),
    )
    text = Page(render_report(ReportData(run=RUN, tally=Tally(), restarts=restarts))).text
    assert re.search(r"episodes ?agent ?52.*machine ?11.*run ?trainer ?1 ?Killed \(signal 9\).*all ?64", text)


def test_a_traceback_is_folded_under_its_last_line() -> None:
    reason = "Traceback (most recent call last):\n  File 'a.py'\nValueError: bad step"
    failed = FailedEpisode(task="t", outcome="agent_failed", reason=reason)
    source = render_report(ReportData(run=RUN, tally=Tally(agent_failed=1), failed=(failed,), failed_left_out=3))
    assert "<summary>ValueError: bad step</summary>" in source
    assert "… and 3 more" in source


def test_the_example_in_its_docstring_is_true() -> None:
    assert doctest.testmod(report).failed == 0
