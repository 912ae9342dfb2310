"""People's side: the command line, the live view, reports."""

from palmette.console.live import render
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
from palmette.console.snapshot import RestartCount, Snapshot, TreeNode
from palmette.console.tree import render_tree

__all__ = [
    "FailedEpisode",
    "HeldOut",
    "Mark",
    "ReportData",
    "RestartCount",
    "RewardPoint",
    "RunFacts",
    "Snapshot",
    "Training",
    "TrainingRows",
    "TreeNode",
    "render",
    "render_report",
    "render_tree",
]
