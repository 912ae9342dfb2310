"""Classes of the script that is being run, for its process nodes.

A class defined in ``counter.py`` lives in the module ``__main__`` when that file is run as a script, and a node's
``__main__`` is another program. So the script is named by its path, and a node loads the file once under a name of
its own; what is under ``if __name__ == "__main__"`` does not run there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from palmette.actors.errors import NodeError

ALIAS: Final = "__palmette_main__"
"""What the head's script is called in a node."""


def importable_name(module: str) -> str:
    """The name under which another process of the program finds ``module``: dotted, or a script's path; or nothing."""
    if module not in ("__main__", ALIAS):
        return module
    main = sys.modules[module]
    spec = main.__spec__
    if spec is not None and module == "__main__":  # python -m package.module
        return spec.name
    file = getattr(main, "__file__", None)
    return str(Path(file).resolve()) if file is not None and file.endswith(".py") else ""


def load(name: str) -> ModuleType:
    """The module behind :func:`importable_name`'s text. Raises what the import raises, or NodeError."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    for known in ("__main__", ALIAS):
        file = getattr(sys.modules.get(known), "__file__", None)
        if file is not None and str(Path(file).resolve()) == name:
            return sys.modules[known]
    spec = importlib.util.spec_from_file_location(ALIAS, name)
    if spec is None or spec.loader is None:
        raise NodeError(f"the script {name} cannot be loaded here")
    module = sys.modules[ALIAS] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except RuntimeError as error:
        del sys.modules[ALIAS]
        if "event loop" in str(error):
            raise NodeError(
                f"{name} runs its program when it is loaded; put that under `if __name__ == '__main__':`, so that "
                "process nodes can import its actors"
            ) from error
        raise
    return module
