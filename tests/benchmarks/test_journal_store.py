"""What goes into the journal comes out again: once, whole, and in order."""

from __future__ import annotations

import math
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.sql import sql

from palmette.agents.conversation import Message, Tokens, Usage
from palmette.benchmarks import AgentFailed, InfraFailed, Scored, Turn, kind, tally
from palmette.benchmarks.errors import (
    AmbiguousRun,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseHeld,
    UnknownRun,
)
from palmette.benchmarks.journal import (
    AttemptStarted,
    EpisodeEnded,
    EpisodeKey,
    Event,
    JournalStore,
    StepTrained,
    TurnSaid,
)
from palmette.benchmarks.outcomes import CriterionScore, Outcome

PROMPT = "a long prompt that every episode begins with. " * 200


def ended(
    run: str, task: str = "t/0", outcome: Outcome | None = None, *, sample: int = 0, attempt: int = 0
) -> EpisodeEnded:
    return EpisodeEnded(
        run=run, task=task, sample=sample, attempt=attempt, outcome=outcome or Scored(reward=1.0),
        answer="4", started=10.0, finished=12.5, seconds=2.5,
    )  # fmt: skip


def turn(index: int, said: str = "hm", *, heard: str = "go on", tokens: Tokens | None = None) -> Turn:
    return Turn(
        index=index,
        heard=(Message(role="user", content=heard),),
        said=Message(role="assistant", content=said),
        usage=Usage(input_tokens=3, output_tokens=1, cost=0.25),
        tokens=tokens,
        seconds=0.5,
    )


def tokens(prompt: tuple[int, ...], output: tuple[int, ...]) -> Tokens:
    return Tokens(prompt_ids=prompt, output_ids=output, logprobs=tuple(-0.1 * i for i in output), policy_version=3)


def test_a_run_is_found_by_its_id_or_the_beginning_of_it(store: JournalStore) -> None:
    config: dict[str, object] = {"agent": "react", "$blob": "no reference", "long": "x" * 9000, "n": [1, None, True]}
    run = store.create_run("gsm8k", config, run_id="abc123")
    other = store.create_run("trail", {}, run_id="abd")
    assert store.get_run("abc") == run
    assert store.get_run("abc").config == config
    assert store.get_run("abd") == other
    assert {found.id for found in store.list_runs()} == {"abc123", "abd"}
    with pytest.raises(AmbiguousRun, match="'ab' is the beginning of several runs: abc123, abd"):
        store.get_run("ab")
    for unknown in ("zz", "", "%", "_bc"):
        with pytest.raises(UnknownRun, match="no run"):
            store.get_run(unknown)


def test_an_id_that_begins_another_is_still_found(store: JournalStore) -> None:
    for name in ("run", "run-2"):
        store.create_run("trail", {}, run_id=name)
    assert store.get_run("run").id == "run"


def test_ids_are_fresh_plain_and_not_taken_twice(store: JournalStore) -> None:
    assert store.create_run("trail", {}).id != store.create_run("trail", {}).id
    store.create_run("trail", {}, run_id="mine")
    with pytest.raises(ValueError, match="there is a run 'mine' already"):
        store.create_run("trail", {}, run_id="mine")
    with pytest.raises(ValueError, match="up to 64 letters"):
        store.create_run("trail", {}, run_id="../etc")


def test_the_status_of_a_run_is_kept(store: JournalStore) -> None:
    run = store.create_run("trail", {})
    assert run.status == "running"
    store.set_status(run.id, "completed")
    assert store.get_run(run.id).status == "completed"
    with pytest.raises(UnknownRun):
        store.set_status("nobody", "failed")


def test_an_episode_ends_exactly_once_and_the_first_one_wins(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    first = ended(run, outcome=Scored(reward=0.5, scores=(CriterionScore(name="c", score=0.5, reason="half"),)))
    again = ended(run, outcome=AgentFailed(reason="late"), attempt=1)
    here = (run, EpisodeKey("t/0", 0))
    assert store.commit([first, again]).ended == (here,)
    committed = store.commit([again, ended(run, "t/1")])
    assert (committed.ended, committed.duplicates) == (((run, EpisodeKey("t/1", 0)),), (here,))
    assert committed.records == 1
    assert store.episodes(run) == [first, ended(run, "t/1")]


def test_every_outcome_is_counted_and_finished(store: JournalStore) -> None:
    run, other = store.create_run("trail", {}).id, store.create_run("trail", {}).id
    outcomes: list[Outcome] = [
        Scored(reward=1.0),
        Scored(reward=0.25),
        InfraFailed(reason="lost"),
        AgentFailed(reason="x"),
    ]
    store.commit([ended(run, "t", outcome, sample=number) for number, outcome in enumerate(outcomes)])
    store.commit([ended(other, "t")])
    assert store.tally(run) == tally(outcomes)
    assert store.finished(run) == {EpisodeKey("t", number) for number in range(4)}
    assert [kind(episode.outcome) for episode in store.episodes(run)] == [kind(outcome) for outcome in outcomes]


def test_turns_come_back_as_they_were_said(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    said = [
        turn(0, heard=PROMPT, tokens=tokens((1, 2, 3), (4, 5))),
        turn(1, "x" * 10_000, tokens=tokens((1, 2, 3, 4, 5, 6), (7,))),
        turn(2, tokens=tokens((1, 2, 9), (8,))),  # a client that shortened its context
        turn(3),
        turn(4, tokens=tokens((1, 2, 9, 8, 8), ())),
    ]
    records = [TurnSaid(run=run, task="t", sample=0, attempt=0, turn=one) for one in said]
    store.commit(records[:2])
    store.commit(records[2:4])
    store.commit(records[4:])
    assert store.turns(run, "t", 0) == said
    assert store.turns(run, "t", 1) == []


def test_prompt_ids_are_stored_once_per_episode_and_survive_a_restart(tmp_path: Path) -> None:
    context = tuple(range(100_000, 102_000))
    said = [
        turn(index, tokens=tokens(context[: 1000 + 10 * index], context[1000 + 10 * index :][:5]))
        for index in range(40)
    ]
    with JournalStore(f"{tmp_path}/runs.db") as store:
        run = store.create_run("trail", {}).id
        for one in said[:20]:
            store.commit([TurnSaid(run=run, task="t", sample=0, attempt=0, turn=one)])
    with JournalStore(f"{tmp_path}/runs.db") as store:
        for one in said[20:]:
            store.commit([TurnSaid(run=run, task="t", sample=0, attempt=0, turn=one)])
        assert store.turns(run, "t", 0) == said
    # Whole, 40 prompts of 1,000 ids of 7 characters would be 280 kB.
    assert (tmp_path / "runs.db").stat().st_size < 150_000


def test_a_turn_sent_twice_is_stored_once_even_if_it_differs(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id

    def said(one: Turn) -> TurnSaid:
        return TurnSaid(run=run, task="t", sample=0, attempt=0, turn=one)

    first = turn(0, tokens=tokens((1, 2), (3,)))
    other = turn(0, tokens=tokens((7, 7), (7,)))
    after = turn(1, tokens=tokens((7, 7, 7, 8), (9,)))
    assert store.commit([said(first), said(other)]).records == 1
    assert store.commit([said(other), said(after)]).records == 1
    assert store.turns(run, "t", 0) == [first, after]


def test_turns_are_those_of_the_attempt_that_ended_the_episode(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    for attempt in range(3):
        store.commit(
            [
                AttemptStarted(run=run, task="t", sample=0, attempt=attempt, at=1.0),
                TurnSaid(run=run, task="t", sample=0, attempt=attempt, turn=turn(0, f"attempt {attempt}")),
            ]
        )
    assert [one.said.content for one in store.turns(run, "t", 0)] == ["attempt 2"]
    store.commit([ended(run, "t", attempt=1)])
    assert [one.said.content for one in store.turns(run, "t", 0)] == ["attempt 1"]
    assert [one.said.content for one in store.turns(run, "t", 0, attempt=0)] == ["attempt 0"]
    assert store.attempts(run) == {EpisodeKey("t", 0): 2}


def test_a_text_that_many_episodes_share_is_stored_once(store: JournalStore, journal_url: str) -> None:
    run = store.create_run("trail", {}).id
    store.commit(
        [TurnSaid(run=run, task=f"t/{n}", sample=0, attempt=0, turn=turn(0, heard=PROMPT)) for n in range(100)]
    )
    assert sql(journal_url, "SELECT count(*), sum(length(data)) FROM blobs") == [(1, len(PROMPT))]
    assert store.turns(run, "t/42", 0)[0].heard[0].content == PROMPT


@pytest.mark.parametrize("text", ["\ud800 alone", "nul \0", "𝄞" * 3000, "\u2028", '{"$blob": "x"}'])
def test_the_journal_refuses_nothing_that_a_model_said(store: JournalStore, text: str) -> None:
    run = store.create_run("trail", {}).id
    strange = Tokens(prompt_ids=(1,), output_ids=(2, 3), logprobs=(-math.inf, -0.5), policy_version=0)
    said = turn(0, text, tokens=strange)
    failed = AgentFailed(reason=text)
    store.commit([TurnSaid(run=run, task="t", sample=0, attempt=0, turn=said), ended(run, "t", failed)])
    store.commit([Event(run=run, at=1.0, kind="restart", reason=text)])
    assert store.turns(run, "t", 0) == [said]
    assert store.episodes(run)[0].outcome == failed


def test_a_step_that_is_done_again_replaces_the_first_one(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    keys = tuple(EpisodeKey("t", number) for number in range(3))

    def step(number: int, loss: float, rows: tuple[EpisodeKey, ...]) -> StepTrained:
        return StepTrained(run=run, step=number, metrics={"loss": loss}, rows=rows, at=1.0)

    store.commit([step(1, 0.5, keys), step(2, 0.4, keys)])
    store.commit([step(2, 0.3, keys[:1]), step(3, math.inf, ())])
    assert store.steps(run) == [step(1, 0.5, keys), step(2, 0.3, keys[:1]), step(3, math.inf, ())]


def test_a_row_of_an_episode_that_was_not_scored_is_found(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    store.commit([ended(run, "t", sample=0), ended(run, "t", InfraFailed(reason="lost"), sample=1)])
    store.commit([StepTrained(run=run, step=1, metrics={}, rows=(EpisodeKey("t", 0),), at=1.0)])
    assert store.unscored_rows(run) == []
    rows = (EpisodeKey("t", 0), EpisodeKey("t", 1), EpisodeKey("never", 0))
    store.commit([StepTrained(run=run, step=2, metrics={}, rows=rows, at=1.0)])
    assert store.unscored_rows(run) == [EpisodeKey("never", 0), EpisodeKey("t", 1)]


def test_events_come_back_in_order_and_once(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    seen = [
        Event(run=run, at=float(9 - n), kind="restart", supervisor="root", child=f"c{n}", reason="x") for n in range(5)
    ]
    store.commit([*seen[:3], seen[0]])
    store.commit(seen)
    assert store.events(run) == seen


def test_a_record_of_an_unknown_run_stops_the_whole_batch(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    with pytest.raises(UnknownRun, match="'stranger'"):
        store.commit([ended(run), ended("stranger")])
    assert store.tally(run).requested == 0
    assert store.commit([ended(run)]).records == 1


def test_a_lease_is_exclusive_until_it_lapses(store: JournalStore) -> None:
    run = store.create_run("trail", {}).id
    store.acquire_lease("run:1", holder="me", seconds=30, run=run, now=100.0)
    with pytest.raises(LeaseHeld, match="'run:1' is held by me for another 10 s"):
        store.acquire_lease("run:1", holder="you", seconds=30, now=120.0)
    assert store.acquire_lease("run:1", holder="me", seconds=30, now=120.0).expires == 150.0
    assert store.acquire_lease("run:1", holder="you", seconds=30, run=run, now=150.0).holder == "you"
    assert not store.release_lease("run:1", holder="me")
    assert [lease.holder for lease in store.leases(run=run)] == ["you"]
    assert store.release_lease("run:1", holder="you")
    assert store.leases() == []


def test_two_processes_may_share_a_journal(journal_url: str) -> None:
    with JournalStore(journal_url) as one, JournalStore(journal_url) as two:
        run = one.create_run("trail", {}).id
        one.commit([ended(run, "a")])
        assert two.commit([ended(run, "a"), ended(run, "b")]).ended == ((run, EpisodeKey("b", 0)),)
        assert one.finished(run) == two.finished(run) == {EpisodeKey("a", 0), EpisodeKey("b", 0)}


def test_what_many_open_and_write_at_once_is_made_once_and_counted_once(journal_url: str) -> None:
    together = threading.Barrier(6, timeout=30)
    prompts = [TurnSaid(run="r", task=f"t/{n}", sample=0, attempt=0, turn=turn(0, heard=PROMPT)) for n in range(4)]

    def work(number: int) -> int:
        together.wait()
        with JournalStore(journal_url) as store:
            if number == 0:
                store.create_run("trail", {}, run_id="r")
            together.wait()
            return sum(len(store.commit([ended("r", f"t/{n}", attempt=number), *prompts]).ended) for n in range(8))

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(work, range(6))) == 8
    assert sql(journal_url, "SELECT count(*) FROM palmette") == [(1,)]
    with JournalStore(journal_url, create=False) as store:
        assert store.tally("r").requested == 8
        assert [len(store.turns("r", f"t/{n}", 0, attempt=0)) for n in range(5)] == [1, 1, 1, 1, 0]


def test_one_of_many_that_want_a_lease_at_once_has_it(journal_url: str) -> None:
    together = threading.Barrier(6, timeout=30)

    def work(number: int) -> bool:
        with JournalStore(journal_url) as store:
            together.wait()
            try:
                store.acquire_lease("run:1", holder=str(number), seconds=60)
            except LeaseHeld:
                return False
            return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(work, range(6))) == 1


def test_names_are_sorted_by_code_point_and_case_matters(store: JournalStore) -> None:
    for name in ("Ab1", "aB1", "ab1", "a-b", "ab_1", "a1"):
        store.create_run("trail", {}, run_id=name)
    assert store.get_run("Ab").id == "Ab1"
    assert store.get_run("ab_").id == "ab_1"
    with pytest.raises(AmbiguousRun, match="several runs: a-b, a1, aB1, ab1, ab_1;"):
        store.get_run("a")
    rows = tuple(EpisodeKey(task, 0) for task in ("é", "a", "B", "a-b", "ab", "_"))
    store.commit([StepTrained(run="a1", step=1, metrics={}, rows=rows, at=1.0)])
    assert [key.task for key in store.unscored_rows("a1")] == ["B", "_", "a", "a-b", "ab", "é"]


def test_a_closed_store_says_so_and_closes_twice(journal_url: str) -> None:
    store = JournalStore(journal_url)
    store.close()
    store.close()
    with pytest.raises(JournalError, match="is closed"):
        store.list_runs()


def test_a_reader_does_not_make_a_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="there is no journal"):
        JournalStore(f"sqlite:///{tmp_path}/none.db", create=False)
    (tmp_path / "empty.db").touch()
    with pytest.raises(JournalUnavailable, match="holds no journal yet"):
        JournalStore(f"{tmp_path}/empty.db", create=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db"]


def test_a_reader_makes_no_tables(journal_url: str) -> None:
    sql(journal_url, "CREATE TABLE x (y INTEGER)")
    sql(journal_url, "DROP TABLE x")
    with pytest.raises(JournalUnavailable, match="holds no journal yet"):
        JournalStore(journal_url, create=False)
    JournalStore(journal_url).close()
    JournalStore(journal_url, create=False).close()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    sql(f"{tmp_path}/other.db", "CREATE TABLE runs (id TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(JournalCorrupt, match="no journal of palmette"):
        JournalStore(f"{tmp_path}/other.db")
    assert (tmp_path / "other.db").read_bytes() == before


def test_tables_of_something_else_are_left_alone(journal_url: str) -> None:
    sql(journal_url, "CREATE TABLE runs (id TEXT)")
    with pytest.raises(JournalCorrupt, match="no journal of palmette"):
        JournalStore(journal_url)
    assert sql(journal_url, "SELECT * FROM runs") == []


def test_a_journal_of_a_newer_format_is_refused(journal_url: str) -> None:
    JournalStore(journal_url).close()
    sql(journal_url, "UPDATE palmette SET version = 99")
    with pytest.raises(JournalCorrupt, match="has format 99, this palmette knows 1"):
        JournalStore(journal_url)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:geheim@host/db",
        "mysql://host/db?password=geheim",
        "postgresql+asyncpg://me:geheim@host/db",
        "postgresql://me:geheim@127.0.0.1:1/db",
        "postgres://127.0.0.1:1/db?password=geheim",
        "postgresql://127.0.0.1:1/db?user=me&sslpassword=geheim",
        "postgresql://127.0.0.1:1/db?nonsense=1&password=geheim",
        "x://me:geheim@:::",
    ],
)
def test_a_password_never_stands_in_a_message(url: str) -> None:
    with pytest.raises(JournalUnavailable) as caught:
        JournalStore(url)
    told = "".join(traceback.format_exception(caught.value))
    assert "geheim" not in told
