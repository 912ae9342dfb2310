"""Tasks, how what agents did with them is judged, and the store that keeps it.

    from palmette.benchmarks import Rubric, Stage, Task, load
    from palmette.benchmarks.criteria import CommandExit, Exact, FileCheck, Numeric, Regex, UnitTests
    from palmette.benchmarks.journal import JournalStore

Suites and the journal's database library are imported on first use.
"""

from palmette.benchmarks.benchmark import Benchmark
from palmette.benchmarks.catalog import load, names
from palmette.benchmarks.errors import BenchmarkError
from palmette.benchmarks.outcomes import (
    AgentFailed,
    Cancelled,
    CriterionScore,
    InfraFailed,
    JudgeFailed,
    Outcome,
    Scored,
    Stale,
    Tally,
    Truncated,
    kind,
    tally,
)
from palmette.benchmarks.rubric import Rubric, Stage
from palmette.benchmarks.task import Criterion, GraderData, Task, Transcript, Turn

__all__ = [
    "AgentFailed",
    "Benchmark",
    "BenchmarkError",
    "Cancelled",
    "Criterion",
    "CriterionScore",
    "GraderData",
    "InfraFailed",
    "JudgeFailed",
    "Outcome",
    "Rubric",
    "Scored",
    "Stage",
    "Stale",
    "Tally",
    "Task",
    "Transcript",
    "Truncated",
    "Turn",
    "kind",
    "load",
    "names",
    "tally",
]
