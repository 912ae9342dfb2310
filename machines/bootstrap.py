"""How the runner gets into a machine: its source through the channel's own input, behind a loader of one line.

A module is compiled when it is imported: a runner is a small process, and so is each fork of it. Nothing is written to
the machine's disk, and nothing stands in an argument list that others on the machine should not
see. ``-I`` keeps Python from importing what lies in the directory that it starts in, ``-S`` and ``-B`` make it start
faster and write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

MODULES = (
    "archive",
    "capture",
    "errors",
    "files",
    "paths",
    "runner.chores",
    "runner.gauges",
    "runner.jobs",
    "runner.keeper",
    "runner.keepers",
    "runner.libc",
    "runner.loop",
    "runner.main",
    "runner.processes",
    "runner.wire",
)
"""Below ``palmette.machines``. All of them are Python 3.6."""

_LOADER = (
    "import os,json,sys;d=b'';"
    'exec("while len(d)<{size}:\\n p=os.read(0,{size}-len(d))\\n if not p:sys.exit(3)\\n d+=p");'
    "exec(json.loads(d.decode())[0])"
)
_FIRST = """
from importlib.machinery import ModuleSpec
class Sources:
    sources = json.loads(d.decode())[1]
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.sources:
            return ModuleSpec(name, cls, is_package=cls.sources[name] is None)
    @staticmethod
    def create_module(spec):
        return None
    @classmethod
    def exec_module(cls, module):
        name = module.__name__
        if cls.sources[name] is not None:
            exec(compile(cls.sources[name], name, "exec"), module.__dict__)
sys.meta_path.insert(0, Sources)
import importlib
importlib.import_module(ENTRY).main()
"""


@cache
def payload() -> bytes:
    """What the loader reads first."""
    return program(MODULES, "runner.main")


def program(names: Sequence[str], entry: str) -> bytes:
    """What :func:`loader` reads: modules below ``palmette.machines``; ``main()`` of ``entry`` is run."""
    sources: dict[str, str | None] = dict.fromkeys(("palmette", "palmette.machines"))
    for name in names:
        package, _, file = f"palmette.machines.{name}".rpartition(".")
        sources.setdefault(package)
        sources[f"{package}.{file}"] = (files(package) / f"{file}.py").read_text("utf-8")
    return json.dumps([f"ENTRY = 'palmette.machines.{entry}'\n{_FIRST}", sources]).encode("ascii")


def loader(source: bytes) -> list[str]:
    """The command that runs ``source``, a :func:`program`, from its standard input."""
    return ["python3", "-I", "-B", "-S", "-c", _LOADER.format(size=len(source))]


def command(machine: str) -> list[str]:
    """The program that waits for :func:`payload`. The machine's id makes it findable by whoever sweeps."""
    return ["env", f"PALMETTE_MACHINE={machine}", f"PALMETTE_RUNNER={machine}", *loader(payload())]
