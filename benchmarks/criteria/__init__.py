"""Ready-made criteria: text, numbers, commands, unit tests, files. Each is a small dataclass; read its docstring."""

from palmette.benchmarks.criteria.commands import CommandExit
from palmette.benchmarks.criteria.files import FileCheck
from palmette.benchmarks.criteria.numeric import Numeric, final_number, number_in
from palmette.benchmarks.criteria.programs import Program, UnitTests
from palmette.benchmarks.criteria.text import Exact, Regex

__all__ = [
    "CommandExit",
    "Exact",
    "FileCheck",
    "Numeric",
    "Program",
    "Regex",
    "UnitTests",
    "final_number",
    "number_in",
]
