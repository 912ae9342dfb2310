"""``palmette resume``: go on with a run that was interrupted or killed."""

from __future__ import annotations

import asyncio

from palmette.console.options import ClusterOption, JournalOption, JsonOption, RunArgument


def resume(
    run: RunArgument, cluster: ClusterOption = None, journal: JournalOption = None, json: JsonOption = False
) -> None:
    """Go on with a run that was interrupted or killed. What had ended is not played again.

    It goes on where it was played, this host or a cluster, unless `--cluster` says otherwise.
    """
    from palmette.benchmarks.journal import JournalStore
    from palmette.console.failures import say
    from palmette.console.options import journal_url
    from palmette.console.playing import conclude, go_on
    from palmette.console.session import tidy, tidy_elsewhere
    from palmette.console.work import machine_of, resumed

    with JournalStore(journal_url(journal), create=False) as store:
        found = store.get_run(run)
    if found.status == "completed":
        tidy()  # it may have been killed between its last episode and its own tidying up
        for line in asyncio.run(tidy_elsewhere(machine_of(found))):
            say(line)
        say(f"run {found.id} is complete: there is nothing to resume")
        conclude(found, journal, as_json=json)
        return
    go_on(found, lambda _: resumed(found, cluster), journal, as_json=json)
