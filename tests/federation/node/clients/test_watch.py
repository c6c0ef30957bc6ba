"""What a node remembers of a batch in which its process died."""

import math
from pathlib import Path

import pytest

from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.state.node_store import FolderShelf, NodeStore


@pytest.fixture
def store(tmp_path: Path) -> NodeStore:
    (tmp_path / "node").mkdir(mode=0o700)
    return NodeStore(FolderShelf(tmp_path / "node"))


def test_units_of_a_batch_in_which_a_process_died_are_suspects(store: NodeStore) -> None:
    watch = Watch(store, "plan")
    watch.begin(["a", "b"])
    watch.end()
    watch.begin(["c", "d", "c"])
    again = Watch(store, "plan")
    assert again.suspects == {"c", "d"}
    assert not again.dead


def test_a_unit_at_which_the_process_dies_again_alone_is_dead(store: NodeStore) -> None:
    Watch(store, "plan").begin(["a", "b"])
    second = Watch(store, "plan")
    second.begin(["a"])
    second.end()
    second.begin(["b"])
    third = Watch(store, "plan")
    assert third.suspects == {"a"}
    assert third.dead == {"b"}
    # It stays so, whatever comes next.
    third.begin(["a"])
    third.end()
    assert Watch(store, "plan").dead == {"b"}


def test_a_first_death_in_a_batch_of_one_makes_a_suspect(store: NodeStore) -> None:
    Watch(store, "plan").begin(["a"])
    again = Watch(store, "plan")
    assert again.suspects == {"a"}
    assert not again.dead
    again.begin(["a"])
    assert Watch(store, "plan").dead == {"a"}


def test_another_plan_knows_nothing_of_it(store: NodeStore) -> None:
    Watch(store, "plan").begin(["a", "b"])
    other = Watch(store, "another plan")
    assert not other.suspects
    assert not other.dead


def test_what_is_done_leaves_no_suspects(store: NodeStore) -> None:
    watch = Watch(store, "plan")
    watch.begin(["a"])
    watch.end()
    assert not Watch(store, "plan").suspects


def test_time_is_counted_to_the_deadline() -> None:
    assert Watch().left() == math.inf
    assert Watch(None, "", 0.0).left() < 0
