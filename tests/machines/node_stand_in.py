"""Stands in for ``palmette node`` on a host: says what it finds there, starts somebody, and stays.

It is sent over as text (``python -c``), and so imports nothing of ours.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

join, *capabilities = sys.argv[1:]
bundle = Path(os.environ["PALMETTE_CLUSTER_DIR"], "bundle")
told = {
    "join": join,
    "capabilities": capabilities,
    "bundle": bundle.read_text() if bundle.exists() else None,
    "environment": dict(os.environ),
    "arguments": Path("/proc/self/cmdline").read_text(),
}
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(json.dumps({**told, "pid": os.getpid(), "child": child.pid}), flush=True)
if os.environ.get("STAND_IN") == "stubborn":
    raise SystemExit("no such head")
if os.environ.get("STAND_IN") != "quiet":
    print("joined", join, flush=True)
child.wait()
