"""The two kinds of runs, an evaluation and a training, as one: what the commands start, and what the journal keeps.

In the journal a run's configuration is JSON: ``{"kind": "evaluate" | "train", "planned": …, …fields…}``. ``resume``
reads it back from there.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from palmette.benchmarks.errors import BadOption
from palmette.benchmarks.journal import Run
from palmette.console.failures import Failed

if TYPE_CHECKING:
    from palmette.benchmarks.run import RunConfig
    from palmette.supervisors import ChildSpec, Supervisor
    from palmette.trainers.training import TrainConfig

T = TypeVar("T")
Kind = Literal["evaluate", "train"]
TreeOf = Callable[[str, str], "ChildSpec[Supervisor]"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run that can be started."""

    kind: Kind
    benchmark: str
    config: dict[str, object]
    """For the journal."""
    title: str
    planned: int
    """Episodes that it asks for in all."""
    machine: str | None = None
    """The image of its machines, if it needs any."""
    cluster: str | None = None
    """The head of the cluster that they live in, if they do."""
    tree: TreeOf
    """``(run, journal)`` to the tree."""
    close: Callable[[], Awaitable[None]]
    """Gives back what was opened for it; to be awaited on the loop that it ran on."""


def evaluation(config: RunConfig) -> Work:
    """Load what ``config`` names, and see to it that a model's endpoint is there. Blocks.

    Raises:
        BenchmarkError, AgentError, MachineError: with one sentence for the person who wrote it.
    """
    from palmette.agents.openai_client import OpenAIClient
    from palmette.benchmarks.run import prepare, run_tree
    from palmette.console.preflight import reach

    for address in (config.base_url, config.model):
        if address and "@" in urlsplit(address.partition("@")[2] or address).netloc:
            raise BadOption("a model's address must hold no password: it is kept in the journal; use OPENAI_API_KEY")
    prepared = prepare(config)
    cluster = config.cluster if prepared.benchmark.needs_machine else None
    if cluster is not None:
        members = members_for(config.needs, cluster)
        prepared = msgspec.structs.replace(prepared, fleets=config.fleets or members)
    if isinstance(prepared.client, OpenAIClient):
        reach(prepared.client.base_url)
    planned = len(prepared.plan)
    return Work(
        kind="evaluate",
        benchmark=config.benchmark,
        config={"kind": "evaluate", "planned": planned, **fields(config)},
        title=" · ".join(filter(None, (config.benchmark, config.agent, config.model))),
        planned=planned,
        machine=config.machine if prepared.benchmark.needs_machine else None,
        cluster=cluster,
        tree=lambda run, journal: run_tree(prepared, run=run, journal=journal),
        close=prepared.client.close,
    )


def members_for(needs: Sequence[str], cluster: str) -> int:
    """How many members of ``cluster`` offer what is needed, at least 1. Blocks.

    Raises:
        Failed: no head answers.
        ClusterError: this host has no credentials for it.
        Unsatisfiable: no member offers that.
    """
    from palmette.actors.cluster.head import Head
    from palmette.actors.cluster.needs_text import parse_needs
    from palmette.actors.cluster.placement import Accounts
    from palmette.console.commands.nodes import ask

    wanted = parse_needs(needs)
    accounts = Accounts()
    for member in ask(cluster, lambda head: head.call(Head.cluster)).members:
        if member.state == "up":
            accounts.add(member.name, member.incarnation, member.capabilities)
    accounts.place("machines", wanted)
    return sum(not member.lacks(wanted, idle=True) for member in accounts.members.values())


def training(config: TrainConfig) -> Work:
    """Make ready what ``config`` names. Blocks.

    Raises:
        BenchmarkError, MissingExtra
    """
    from palmette.agents.errors import MissingExtra
    from palmette.trainers.training import prepare_training, training_tree

    for package in ("torch", "transformers", "trl", "datasets"):
        if find_spec(package) is None:  # they are the trainer's process to import: here it would cost seconds
            raise MissingExtra(package, "train")
    prepared = prepare_training(config)
    planned = 2 * config.eval_episodes + config.steps * config.groups * config.num_generations
    return Work(
        kind="train",
        benchmark=config.benchmark,
        config={"kind": "train", "planned": planned, **fields(config)},
        title=f"{config.benchmark} · GRPO{' · with injected crashes' if config.chaos else ''}",
        planned=planned,
        machine=config.machine if prepared.benchmark.needs_machine else None,
        tree=lambda run, journal: training_tree(prepared, run=run, journal=journal),
        close=prepared.client.close,
    )


def fields(config: msgspec.Struct) -> dict[str, object]:
    """``config`` as JSON has it."""
    return cast("dict[str, object]", msgspec.to_builtins(config))


def resumed(run: Run, cluster: str | None = None) -> Work:
    """The work of a run that stands in the journal; of an evaluation on ``cluster``, if that is given. Blocks."""
    if kind_of(run) == "train":
        return training(train_config(run))
    config = run_config(run)
    return evaluation(msgspec.structs.replace(config, cluster=cluster or config.cluster))


def kind_of(run: Run) -> Kind:
    """Raises Failed for a run that this palmette did not write."""
    kind = run.config.get("kind", "evaluate")
    if kind not in ("evaluate", "train"):
        raise Failed(f"run {run.id} is of kind {kind!r}, which this palmette does not know; use the one that wrote it")
    return kind


def machine_of(run: Run) -> str | None:
    """The image that ``run`` names for its machines, whether or not it needs any."""
    image = run.config.get("machine")
    return image if isinstance(image, str) else None


def run_config(run: Run) -> RunConfig:
    """An evaluation's configuration, from the journal."""
    from palmette.benchmarks.run import RunConfig

    return _read(run, RunConfig)


def train_config(run: Run) -> TrainConfig:
    """A training's configuration, from the journal."""
    from palmette.trainers.training import TrainConfig

    return _read(run, TrainConfig)


def _read(run: Run, kind: type[T]) -> T:
    try:
        return msgspec.convert(run.config, kind)
    except msgspec.ValidationError as error:
        raise Failed(f"the configuration of run {run.id} cannot be read ({error}); start a new run") from None


def command_of(run: Run) -> str:
    """The command line that makes the same run, without what has its default and without the journal."""
    kind = kind_of(run)
    config: msgspec.Struct = run_config(run) if kind == "evaluate" else train_config(run)
    words = ["palmette", "run" if kind == "evaluate" else "train", run.benchmark]
    for field in msgspec.structs.fields(type(config)):
        value: object = getattr(config, field.name)
        if field.name in ("benchmark", "options", "output_dir") or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        for one in cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,):
            words += [option] if one is True else [option, str(one)]
    return shlex.join(words)
