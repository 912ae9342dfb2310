"""The kernel: actors, references, exits, links, monitors, timers, the registry, process nodes."""

from palmette.actors.actor import Actor, ReplyToken
from palmette.actors.cluster.needs import BadNeeds, Needs, needs
from palmette.actors.cluster.placement import Unsatisfiable
from palmette.actors.cluster.placer import NoPlace
from palmette.actors.collector import tune_collector
from palmette.actors.deadlines import deadline, time_left
from palmette.actors.endpoints import Endpoint, endpoint
from palmette.actors.errors import (
    ActorDied,
    ActorError,
    BadCall,
    DeadlineExceeded,
    Decline,
    Draining,
    MailboxFull,
    NameTaken,
    NodeError,
    PalmetteError,
    Refused,
    StartFailed,
    StashFull,
)
from palmette.actors.exits import (
    Crashed,
    Declined,
    Killed,
    MaxRestarts,
    NoProcess,
    Normal,
    Reason,
    Shutdown,
    Unreachable,
    describe,
    is_graceful,
    root_cause,
)
from palmette.actors.heartbeat import Heartbeat
from palmette.actors.introspection import BlockRecord, DeadLetter, ExitRecord, SystemStatistics, TreeNode
from palmette.actors.messages import ChildExit, Down, Exit, TaskDone
from palmette.actors.ref import Ref
from palmette.actors.registry import Member, Registry
from palmette.actors.registry_table import Registered, Unregistered
from palmette.actors.running import run
from palmette.actors.state import ActorState
from palmette.actors.system import System

__all__ = [
    "Actor",
    "ActorDied",
    "ActorError",
    "ActorState",
    "BadCall",
    "BadNeeds",
    "BlockRecord",
    "ChildExit",
    "Crashed",
    "DeadLetter",
    "DeadlineExceeded",
    "Decline",
    "Declined",
    "Down",
    "Draining",
    "Endpoint",
    "Exit",
    "ExitRecord",
    "Heartbeat",
    "Killed",
    "MailboxFull",
    "MaxRestarts",
    "Member",
    "NameTaken",
    "Needs",
    "NoPlace",
    "NoProcess",
    "NodeError",
    "Normal",
    "PalmetteError",
    "Reason",
    "Ref",
    "Refused",
    "Registered",
    "Registry",
    "ReplyToken",
    "Shutdown",
    "StartFailed",
    "StashFull",
    "System",
    "SystemStatistics",
    "TaskDone",
    "TreeNode",
    "Unreachable",
    "Unregistered",
    "Unsatisfiable",
    "deadline",
    "describe",
    "endpoint",
    "is_graceful",
    "needs",
    "root_cause",
    "run",
    "time_left",
    "tune_collector",
]
