from __future__ import annotations

import doctest
import io
from types import ModuleType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from palmette.benchmarks.outcomes import Tally
from palmette.console import fold as fold_module
from palmette.console import live, plain
from palmette.console.fold import fold, lines
from palmette.console.live import render
from palmette.console.palette import OUTCOMES
from palmette.console.snapshot import RestartCount, Snapshot, TreeNode
from palmette.console.tree import render_tree

STATES = ["running", "starting", "restarting", "down", "stopping", "suspended", "crashed", "zombie", "unheard-of"]

# Whatever an agent may have printed: control characters, wide and combining ones, markup, newlines.
texts = st.text(max_size=60) | st.sampled_from(["[red]x[/red]", "\x1b[2J\x1b]0;title\x07", "漢字" * 30, "a\nb", ""])
counts = st.integers(0, 10**7)


def nodes(children: st.SearchStrategy[tuple[TreeNode, ...]]) -> st.SearchStrategy[TreeNode]:
    return st.builds(
        TreeNode,
        name=texts,
        kind=texts,
        state=st.sampled_from(STATES),
        pid=st.none() | st.integers(1, 4 << 20),
        place=st.none() | st.text(max_size=20),
        restarts=counts,
        detail=texts,
        children=children,
        hidden_children=st.integers(0, 300),
    )


trees = st.recursive(
    nodes(st.just(())), lambda children: nodes(st.lists(children, max_size=12).map(tuple)), max_leaves=40
)

snapshots = st.builds(
    Snapshot,
    run_id=texts,
    title=texts,
    phase=texts,
    done=counts,
    total=st.none() | counts,
    tally=st.builds(Tally, **{look.kind: counts for look in OUTCOMES}, reward_sum=st.floats(0, 1e6)),
    curve=st.lists(st.none() | st.floats(), max_size=50).map(tuple),
    restarts=st.lists(
        st.builds(RestartCount, supervisor=texts, child=texts, count=counts, last_reason=texts), max_size=12
    ).map(tuple),
    tree=st.none() | trees,
    elapsed=st.floats(0, 1e6),
    eta=st.none() | st.floats(0, 1e6),
    log=st.lists(texts, max_size=10).map(tuple),
)


def shown(renderable: RenderableType, width: int, *, encoding: str = "utf-8") -> list[str]:
    """What a terminal without colours gets to see."""
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(file=raw, width=width, color_system=None, legacy_windows=False)
    console.print(renderable)
    raw.flush()
    buffer = raw.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(encoding).removesuffix("\n").split("\n")


def episode(number: int, state: str = "running", agent: str = "running") -> TreeNode:
    parts = (TreeNode(name="machine"), TreeNode(name="agent", state=agent), TreeNode(name="evaluators"))
    return TreeNode(name=f"trail/{number:04}", kind="Episode", state=state, children=parts)


def run_tree(*episodes: TreeNode) -> TreeNode:
    return TreeNode(
        name="run",
        kind="Supervisor",
        children=(
            TreeNode(name="journal", kind="Journal"),
            TreeNode(name="episodes", kind="DynamicSupervisor", children=episodes),
            TreeNode(
                name="trainer", kind="Trainer", pid=4711, place="gpu-a, gpu 0 1", restarts=2, detail="step 17 of 40"
            ),
        ),
    )


@settings(max_examples=60)
@given(snapshot=snapshots, width=st.integers(20, 160), height=st.integers(3, 60), ascii_only=st.booleans())
def test_any_snapshot_fits_any_terminal(snapshot: Snapshot, width: int, height: int, ascii_only: bool) -> None:
    encoding = "ascii" if ascii_only else "utf-8"
    drawn = shown(render(snapshot, width, height), width, encoding=encoding)
    assert len(drawn) <= height
    assert all(cell_len(line) <= width for line in drawn)
    assert not any(char < " " or "\x7f" <= char < "\xa0" for line in drawn for char in line)


@given(tree=trees, most=st.integers(1, 60))
def test_folding_keeps_to_its_lines_and_counts_what_it_hides(tree: TreeNode, most: int) -> None:
    folded = fold(tree, most)
    assert lines(folded) <= most
    assert_counted(tree, folded)


def assert_counted(whole: TreeNode, folded: TreeNode) -> None:
    assert folded.hidden_children + len(folded.children) == whole.hidden_children + len(whole.children)
    left = list(whole.children)
    for child in folded.children:
        at = next(i for i, other in enumerate(left) if _same(other, child))
        assert_counted(left[at], child)
        left = left[at + 1 :]  # the order stays


def _same(whole: TreeNode, folded: TreeNode) -> bool:
    own = ("name", "kind", "state", "pid", "place", "restarts", "detail")
    return all(getattr(whole, field) == getattr(folded, field) for field in own)


@given(tree=trees)
def test_a_tree_that_fits_is_not_folded(tree: TreeNode) -> None:
    assert fold(tree, lines(tree)) == tree


def test_of_256_episodes_a_few_are_shown_and_the_rest_is_counted() -> None:
    drawn = shown(render(Snapshot(run_id="k3", title="t", tree=run_tree(*map(episode, range(256)))), 80, 23), 80)
    episodes = [line for line in drawn if "trail/" in line]
    assert 2 <= len(episodes) <= 15
    assert any(f"… and {256 - len(episodes)} more" in line for line in drawn)
    assert any("trainer  2 restarts  pid 4711  on gpu-a, gpu 0 1  step 17 of 40" in line for line in drawn)


@pytest.mark.parametrize("state", ["zombie", "crashed", "restarting", "down"])
def test_a_child_that_needs_attention_is_among_the_few(state: str) -> None:
    episodes = [episode(n, state if n == 200 else "running") for n in range(256)]
    drawn = shown(render(Snapshot(run_id="k3", title="t", tree=run_tree(*episodes)), 80, 23), 80)
    assert any("trail/0200" in line and state in line for line in drawn)


def test_an_episode_whose_agent_restarts_is_among_the_few() -> None:
    episodes = [episode(n, agent="restarting" if n == 77 else "running") for n in range(256)]
    assert any("trail/0077" in line for line in shown(render_tree(fold(run_tree(*episodes), 12)), 80))


def test_states_are_told_in_words_where_there_is_no_colour_and_no_unicode() -> None:
    drawn = shown(render_tree(run_tree(episode(1, "zombie"))), 80, encoding="ascii")
    assert drawn[0] == "* run  Supervisor"
    assert any("! trail/0001 zombie" in line for line in drawn)


def test_states_that_need_attention_are_coloured() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    console.print(render_tree(TreeNode(name="a", state="zombie")))
    assert "\x1b[1;37;41mzombie" in file.getvalue()


def test_every_line_of_a_tree_is_one_actor() -> None:
    tree = run_tree(*map(episode, range(40)))
    assert len(shown(render_tree(tree), 100)) == lines(tree) == 4 + 40 * 4


def test_the_outcomes_add_up_on_the_screen() -> None:
    tally = Tally(scored=1071, agent_failed=9, infra_failed=6, reward_sum=801.0)
    drawn = shown(render(Snapshot(run_id="k3", title="t", tally=tally), 100, 10), 100)
    assert drawn[2].startswith("1,086 ended = 1,071 scored + 9 agent failed + 6 infra failed ")
    assert drawn[2].endswith("mean reward 0.748")


def test_parts_give_way_in_order_and_progress_stays() -> None:
    snapshot = Snapshot(
        run_id="k3", title="trail", phase="GRPO step 3", done=3, total=4, curve=(0.1, 0.2), log=("killed",),
        tree=run_tree(*map(episode, range(100))), restarts=(RestartCount(supervisor="run", child="x", count=1),),
    )  # fmt: skip
    seen = {
        height: "\n".join(shown(render(snapshot, 80, height), 80)) for height in (3, 8, 20, 24, 40)
    }  # fmt: skip
    assert all("GRPO step 3" in text and "75%" in text and "ended" in text for text in seen.values())
    assert [height for height, text in seen.items() if "journal" in text] == [8, 20, 24, 40]
    assert [height for height, text in seen.items() if "┤" in text and "run/x" in text] == [20, 24, 40]
    assert [height for height, text in seen.items() if "killed" in text] == [24, 40]


def test_more_done_than_was_planned_does_not_overflow_the_bar() -> None:
    drawn = shown(render(Snapshot(run_id="k3", title="t", done=7, total=5), 60, 5), 60)
    assert "7 of 5  100%" in drawn[1]


def test_restarts_beyond_the_room_are_summed_up() -> None:
    restarts = tuple(RestartCount(supervisor="s", child=f"c{n}", count=n) for n in range(1, 21))
    text = "\n".join(shown(render(Snapshot(run_id="k3", title="t", restarts=restarts), 80, 24), 80))
    assert "restarts  210 in all" in text
    assert f"{sum(range(1, 16))} in 15 others" in text


def test_a_snapshot_survives_the_wire() -> None:
    snapshot = Snapshot(run_id="k3", title="t", tree=run_tree(episode(1)), curve=(0.5, None))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


@pytest.mark.parametrize("module", [live, plain, fold_module])
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
