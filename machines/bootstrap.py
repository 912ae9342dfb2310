"""How the runner gets into a machine: its source through the channel's own input, behind a loader of one line.

Nothing is written to the machine's disk, and nothing stands in an argument list that others on the machine should not
see. ``-I`` keeps Python from importing what lies in the directory that it starts in, ``-S`` and ``-B`` make it start
faster and write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

MODULES = (
    "errors",
    "runner.libc",
    "runner.wire",
    "capture",
    "paths",
    "files",
    "archive",
    "runner.processes",
    "runner.gauges",
    "runner.keeper",
    "runner.loop",
    "runner.jobs",
    "runner.chores",
    "runner.main",
)
"""Below ``palmette.machines``, each after those that it imports. All of them are Python 3.6."""

_LOADER = (
    "import os,json,sys,types;d=b'';"
    'exec("while len(d)<{size}:\\n p=os.read(0,{size}-len(d))\\n if not p:sys.exit(3)\\n d+=p");'
    "exec(json.loads(d.decode())[0])"
)
_FIRST = """
import importlib.machinery
for name, source in json.loads(d.decode())[1]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    head, _, tail = name.rpartition(".")
    if source is None:
        module.__path__ = []
    else:
        exec(compile(source, name, "exec"), module.__dict__)
    if head:
        setattr(sys.modules[head], tail, module)
module.main()
"""


@cache
def payload() -> bytes:
    """What the loader reads first."""
    return program(MODULES)


def program(names: Sequence[str]) -> bytes:
    """What :func:`loader` reads: modules below ``palmette.machines`` in this order; ``main()`` of the last is run."""
    modules: list[tuple[str, str | None]] = [
        (name, None) for name in ("palmette", "palmette.machines", "palmette.machines.runner")
    ]
    for name in names:
        package, _, file = f"palmette.machines.{name}".rpartition(".")
        modules.append((f"palmette.machines.{name}", (files(package) / f"{file}.py").read_text("utf-8")))
    return json.dumps([_FIRST, modules]).encode("ascii")


def loader(source: bytes) -> list[str]:
    """The command that runs ``source``, a :func:`program`, from its standard input."""
    return ["python3", "-I", "-B", "-S", "-c", _LOADER.format(size=len(source))]


def command(machine: str) -> list[str]:
    """The program that waits for :func:`payload`. The machine's id makes it findable by whoever sweeps."""
    return ["env", f"PALMETTE_MACHINE={machine}", f"PALMETTE_RUNNER={machine}", *loader(payload())]
