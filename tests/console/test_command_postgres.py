"""A whole run on a real PostgreSQL: played, killed, resumed, listed and reported, and no password anywhere."""

from __future__ import annotations

import psycopg
from support.command_line import CommandLine, end, until
from support.postgres_server import PASSWORD, PostgresServer


def test_a_run_killed_on_postgresql_goes_on_where_it_was_and_is_listed_and_reported(
    command_line: CommandLine, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()

    def ended() -> int:
        try:
            return int(str(postgres_server.execute("SELECT count(*) FROM episodes", url)[0][0]))
        except psycopg.errors.UndefinedTable:
            return 0

    process = command_line.start(
        "run", "trail", "--agent", "reference", "--limit", "32", "--concurrency", "4", "--journal", url
    )
    try:
        until(lambda: ended() >= 5 or process.poll() is not None, "five ends")
    finally:
        end(process)  # kill -9 of its whole process group
    told = "".join(command_line.output())
    [(run, before)] = postgres_server.execute("SELECT run, count(*) FROM episodes GROUP BY run", url)
    assert 5 <= int(str(before)) < 32, "it was killed in the midst"
    found = command_line.json("resume", str(run), "--journal", url)
    assert (found["requested"], found["not_yet_ended"], found["state"]) == (32, 0, "completed")
    assert (found["outcomes"]["scored"], ended()) == (32, 32)
    told += str(found)

    command_line.environment["PALMETTE_JOURNAL"] = url
    [listed] = command_line.json("runs")
    assert (listed["run"], listed["state"]) == (run, "completed")
    told += "".join(command_line.run("report", str(run), "-o", "page.html"))
    page = (command_line.folder / "page.html").read_text()
    assert "<b>32</b> requested" in page
    assert PASSWORD not in told + page + str(listed)
    assert command_line.leftovers() == []
    assert not command_line.journal.exists(), "nothing went to the default journal"
