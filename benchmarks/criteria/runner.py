"""Runs *inside* a machine, as ``python3 -c``, never in palmette's own process: an answer, then its tests.

The job comes as JSON on standard input, so that neither tests nor tokens ever lie in a file of the machine. Two random
tokens go back on standard output: ``ready`` before a line of the answer has run (without it the interpreter is at
fault, not the answer) and ``done`` after the last test (an exit code of 0 alone proves nothing: an answer may call
``os._exit(0)``). This stops early exits and accidents; an answer written to attack its own judge shares a process with
it and could dig the token out of memory. It needs Python 3.8 and nothing else.
"""

import json
import os
import sys
import types


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    report = os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.write(report, (job["ready"] + "\n").encode())
    solution = types.ModuleType("solution")  # not __main__: a demonstration under that guard must not run
    sys.modules["solution"] = solution  # dataclasses and enum look their module up by name
    code, refusal = None, None
    for source in job["sources"]:
        try:
            code = compile(source, "<solution>", "exec", dont_inherit=True)
            break
        except (SyntaxError, ValueError) as error:  # ValueError: a NUL character
            refusal = refusal or error
    if code is None:
        raise refusal or ValueError("no source was given")
    exec(code, solution.__dict__)
    exec(compile(job["tests"], "<tests>", "exec", dont_inherit=True), solution.__dict__)
    sys.stdout.flush()
    os.write(report, ("\n" + job["done"] + "\n").encode())
    os._exit(0)  # threads and exit hooks that the answer left behind have no say any more


if __name__ == "__main__":
    main()
