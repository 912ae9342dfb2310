"""Starts that fail say why, leave no process, and are over when the starter learns of them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import psutil
import pytest
from node_actors import BadInit, SlowStart, Team, Worker
from node_bench import Bench
from node_processes import family, host_of, living_children, until

from palmette.actors import Actor, ActorDied, StartFailed, System, wire
from palmette.actors.fingerprint import this_build
from palmette.actors.housing import Host
from palmette.supervisors import ChildSpec, DynamicSupervisor, StartDeclined, StartRefused, Supervisor, child

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def nodes_of(bench: Bench) -> int:
    """How many node processes there are."""
    return len(family(host_of(bench.system), await bench.there.call(Worker.pid)).nodes)


async def refused(bench: Bench, spec: ChildSpec[Actor]) -> str:
    """What ``spec``'s failing start is refused with."""
    before = await nodes_of(bench)
    with pytest.raises(StartRefused) as caught:
        await bench.more.call(DynamicSupervisor.start_child, spec)
    assert await nodes_of(bench) == before
    assert not bench.system.ref_at(f"/more/{spec.name}", Actor).is_alive()
    return str(caught.value)


async def test_a_raise_in_init_is_the_reason(bench: Bench) -> None:
    text = await refused(bench, child(BadInit, how="raise", name="bad", isolation="process"))
    assert text == "/more/bad could not start: ValueError: no such model: gpt-0"
    [record] = bench.system.why("/more/bad")
    assert str(record) == "/more/bad#1 (BadInit): ValueError: no such model: gpt-0"


async def test_a_decline_is_no_failure_there_either(bench: Bench) -> None:
    before = await nodes_of(bench)
    spec = child(BadInit, how="decline", name="shy", isolation="process")
    with pytest.raises(StartDeclined, match="this machine has no GPU"):
        await bench.more.call(DynamicSupervisor.start_child, spec)
    assert await nodes_of(bench) == before
    assert (
        str(bench.system.why("/more/shy")[-1]) == "/more/shy#1 (BadInit): declined to start (this machine has no GPU)"
    )


async def test_an_exit_in_init_is_the_reason(bench: Bench) -> None:
    assert "SystemExit: no" in await refused(bench, child(BadInit, how="exit", name="bad", isolation="process"))


async def test_a_process_that_dies_in_init_is_noticed_at_once(bench: Bench) -> None:
    assert "ended without a word" in await refused(bench, child(BadInit, how="kill", name="bad", isolation="process"))


async def test_the_innermost_failure_of_a_tree_is_the_one_to_show(bench: Bench) -> None:
    text = await refused(bench, child(Team, names=["a", "a"], name="team", isolation="process"))
    assert text == "/more/team could not start: BadSpec: two children cannot share a name: a"


def foreign(module: str, name: str) -> type[Actor]:
    """An actor class that claims to live elsewhere."""
    return type(name, (Actor,), {"__module__": module})


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        ("no_such_module_here", "A", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("unimportable", "A", "RuntimeError: this module does not like you"),
        ("node_actors", "Missing", "NodeError: node_actors has no Actor class named Missing"),
        ("node_actors", "Point", "NodeError: node_actors has no Actor class named Point"),
        ("__main__", "A", "A cannot be imported by another process; define it at the top of a module"),
    ],
)
async def test_a_class_that_the_node_cannot_import_is_named(bench: Bench, module: str, name: str, text: str) -> None:
    if module == "__main__":
        # What is typed into an interpreter lives in no file.
        with patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
            said = await refused(bench, child(foreign(module, name), name="foreign", isolation="process"))
    else:
        said = await refused(bench, child(foreign(module, name), name="foreign", isolation="process"))
    assert text in said


async def test_a_class_inside_a_function_is_named(bench: Bench) -> None:
    class Inner(Actor):
        pass

    said = await refused(bench, child(Inner, name="inner", isolation="process"))
    assert "Inner cannot be imported by another process" in said


async def test_an_argument_that_cannot_travel_is_named(bench: Bench) -> None:
    said = await refused(bench, child(Worker, tag=bench, name="argument", isolation="process"))
    assert "a Bench cannot cross to another process; send a Struct or plain data" in said


async def test_an_argument_of_the_wrong_type_is_named(bench: Bench) -> None:
    said = await refused(bench, child(Worker, tag=7, name="argument", isolation="process"))
    assert "Worker.__init__: Expected `str`, got `int` - at `$.tag`" in said


@pytest.mark.parametrize("block", [False, True])
async def test_a_start_that_takes_too_long_is_ended_with_its_process(bench: Bench, block: bool) -> None:
    spec = child(SlowStart, block=block, name="slow", isolation="process", start_timeout=0.3)
    assert "its start took longer than 0.3 s" in await refused(bench, spec)


@pytest.mark.parametrize("called_back", [False, True])
async def test_a_start_that_is_called_off_leaves_nothing(bench: Bench, called_back: bool) -> None:
    keeper = family(host_of(bench.system), await bench.there.call(Worker.pid)).keeper
    before = len(living_children(keeper))
    spec = child(SlowStart, block=True, name="slow", isolation="process")
    starting = asyncio.ensure_future(bench.more.call(DynamicSupervisor.start_child, spec))
    if called_back:
        slow = bench.system.ref_at("/more/slow", Actor)
        await until(lambda: slow.is_alive())
    else:
        await until(lambda: len(living_children(keeper)) > before)  # or there is nothing yet that could be left
        assert len(_booting(bench)) == 1
    bench.more.kill("its supervisor dies meanwhile")
    with pytest.raises(ActorDied):
        await starting
    await until(lambda: len(living_children(keeper)) == before)
    await until(bench.more.is_alive)


async def test_a_process_that_dies_before_it_calls_back_is_noticed_at_once(bench: Bench) -> None:
    keeper = family(host_of(bench.system), await bench.there.call(Worker.pid)).keeper
    known = {process.pid for process in psutil.Process(keeper).children()}
    starting = asyncio.ensure_future(refused(bench, child(Worker, name="stillborn", isolation="process")))
    await until(lambda: {process.pid for process in psutil.Process(keeper).children()} > known)
    for process in psutil.Process(keeper).children():
        if process.pid not in known:
            process.kill()
    assert "its process ended before it had called back" in await starting


def _booting(bench: Bench) -> dict[str, object]:
    return bench.system.nodes._expected  # pyright: ignore[reportPrivateUsage, reportReturnType]


async def test_a_process_that_dies_right_after_it_called_back_is_noticed_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call_and_die(_: Host, order: wire.Order) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(order.socket)
            hello = wire.Hello(order.node, order.token, 2**22 + 1, this_build())
            connection.sendall(b"".join(wire.encode_frame(hello, 0)))

    monkeypatch.setattr(Host, "order", call_and_die)
    said = await refused(bench, child(Worker, name="fleeting", isolation="process"))
    assert "ended right after it had called back" in said or "ended without a word" in said


async def test_many_nodes_start_at_once(bench: Bench) -> None:
    workers = await asyncio.gather(*(bench.spare(f"w{number}") for number in range(6)))
    assert len({await worker.call(Worker.pid) for worker in workers}) == 6


async def test_programs_run_under_a_nodes_loop(bench: Bench) -> None:
    assert await asyncio.gather(*(bench.there.call(Worker.run_async, f"hello {n}") for n in range(3))) == [
        "hello 0",
        "hello 1",
        "hello 2",
    ]


async def test_programs_that_a_node_starts_see_the_users_own_environment(bench: Bench) -> None:
    worker = await bench.spare("runner")
    _, pythonpath = await worker.call(Worker.run_program)
    assert pythonpath == str(os.environ.get("PYTHONPATH"))


SCRIPT = """
import asyncio
from palmette.actors import Actor, StartFailed, System, endpoint
from palmette.supervisors import Supervisor, child
class Mine(Actor):
    @endpoint
    async def answer(self) -> int: return 42
async def main():
    try:
        async with System.start(Supervisor.spec(children=[child(Mine, name='m', isolation='process')])) as system:
            print(await system.whereis('m', Mine).call(Mine.answer))
    except StartFailed as error:
        print(error)
"""


async def _say(script: Path, ending: str) -> str:
    await asyncio.to_thread(script.write_text, f"{SCRIPT}{ending}\n")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


async def test_a_script_may_define_its_process_actors_itself(tmp_path: Path) -> None:
    said = await _say(tmp_path / "script.py", "if __name__ == '__main__': asyncio.run(main())")
    assert said == "42\n"


async def test_a_script_that_runs_its_program_when_it_is_imported_is_told_what_to_do(tmp_path: Path) -> None:
    said = await _say(tmp_path / "script.py", "asyncio.run(main())")
    assert "/m could not start: NodeError:" in said
    assert "runs its program when it is loaded; put that under `if __name__ == '__main__':`" in said


async def test_the_first_start_fails_clearly_where_no_process_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess as module

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "Popen", refuse)
    with pytest.raises(StartFailed, match=r"/w could not start: BlockingIOError: .* temporarily unavailable"):
        async with System.start(Supervisor.spec(children=[child(Worker, name="w", isolation="process")])):
            pass


async def test_a_host_that_cannot_start_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from palmette.actors import housing

    monkeypatch.setattr(housing, "HOST", "palmette.actors.no_such_host")
    with pytest.raises(StartFailed, match="the host process ended with status 1 before it had started"):
        async with System.start(Supervisor.spec(children=[child(Worker, name="w", isolation="process")])):
            pass


async def test_a_temporary_directory_with_too_long_a_name_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tempfile

    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(StartFailed, match="too long for a unix socket; set TMPDIR to a shorter directory"):
        async with System.start(Supervisor.spec(children=[child(Worker, name="w", isolation="process")])):
            pass
    assert list(deep.iterdir()) == []
