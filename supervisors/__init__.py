"""Supervision: child specs, strategies, restart budgets, backoff, dynamic and partitioned supervisors, tasks."""

from palmette.supervisors.children import ChildCounts, ChildInfo
from palmette.supervisors.dynamic import DynamicSupervisor
from palmette.supervisors.errors import BadSpec, ChildExists, NoSuchChild, StartDeclined, StartRefused, TooManyChildren
from palmette.supervisors.partition import PartitionSupervisor, partition_of
from palmette.supervisors.policy import Backoff, Budget
from palmette.supervisors.spec import ChildSpec, child
from palmette.supervisors.supervisor import Supervisor, why
from palmette.supervisors.task import Exited, Ok, Task
from palmette.supervisors.tasks import TaskSupervisor

__all__ = [
    "Backoff",
    "BadSpec",
    "Budget",
    "ChildCounts",
    "ChildExists",
    "ChildInfo",
    "ChildSpec",
    "DynamicSupervisor",
    "Exited",
    "NoSuchChild",
    "Ok",
    "PartitionSupervisor",
    "StartDeclined",
    "StartRefused",
    "Supervisor",
    "Task",
    "TaskSupervisor",
    "TooManyChildren",
    "child",
    "partition_of",
    "why",
]
