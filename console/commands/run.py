"""``palmette run``: play a benchmark and score it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palmette.console.options import ClusterOption, JournalOption, JsonOption

Option = typer.Option


def run(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="gsm8k, humaneval or trail.", show_default=False)
    ],
    data: Annotated[
        Path | None, Option(metavar="PATH", help="Directory or file with the benchmark's data.", show_default=False)
    ] = None,
    agent: Annotated[str, Option(metavar="AGENT", help="react, reference, recorded:FIELD or silent.")] = "react",
    model: Annotated[
        str | None, Option(metavar="MODEL", help="For react: openai/NAME or openai/NAME@URL.", show_default=False)
    ] = None,
    base_url: Annotated[
        str | None, Option(metavar="URL", help="Address of an OpenAI-compatible endpoint.", show_default=False)
    ] = None,
    machine: Annotated[str, Option(metavar="IMAGE", help="Where commands run.")] = "local",
    warm: Annotated[
        int | None, Option(help="Machines kept up for the next episodes.", show_default="2, local 0")
    ] = None,
    concurrency: Annotated[int, Option(help="Episodes at a time.")] = 16,
    limit: Annotated[int | None, Option(help="Only the first so many tasks.", show_default=False)] = None,
    samples: Annotated[int, Option(help="Episodes per task.")] = 1,
    seed: Annotated[int, Option(help="Of the sampling; the same seed samples alike.")] = 0,
    episode_seconds: Annotated[float, Option(help="Time limit of an episode.")] = 1800.0,
    cluster: ClusterOption = None,
    fleets: Annotated[
        int | None, Option(help="Processes on the members that machines live in.", show_default="one for each")
    ] = None,
    needs: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=VALUE",
            help="What a member must offer for that: docker=yes, zone=eu. May be given again.",
            show_default=False,
        ),
    ] = None,
    requests_per_minute: Annotated[
        float | None, Option(metavar="N", help="To the model, of all agents.", show_default=False)
    ] = None,
    tokens_per_minute: Annotated[
        float | None, Option(metavar="N", help="In and out, of all agents.", show_default=False)
    ] = None,
    dollars: Annotated[
        float | None,
        Option(metavar="USD", help="Stop when the endpoint's own figures add up to it.", show_default=False),
    ] = None,
    journal: JournalOption = None,
    json: JsonOption = False,
) -> None:
    """Play a benchmark with an agent, and score it.

    A run that was interrupted, or killed at any moment, goes on with `palmette resume`: every task ends exactly once.
    With `--cluster`, its machines live on the cluster's members, and the loss of one costs what ran there a restart.

    Examples: `palmette run trail --agent reference` · `palmette run gsm8k --data DIR --agent recorded:175b_finetuning`
    """
    from palmette.benchmarks.run import RunConfig
    from palmette.console.playing import begin
    from palmette.console.work import evaluation

    config = RunConfig(
        benchmark=benchmark,
        data=None if data is None else str(data.absolute()),
        agent=agent,
        model=model,
        base_url=base_url,
        machine=machine,
        warm=warm,
        concurrency=concurrency,
        limit=limit,
        samples=samples,
        seed=seed,
        episode_seconds=episode_seconds,
        cluster=cluster,
        fleets=fleets,
        needs=tuple(needs or ()),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        dollars=dollars,
    )
    begin(lambda run_id: evaluation(config), journal, as_json=json)
