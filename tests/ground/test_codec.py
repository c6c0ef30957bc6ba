"""What is kept comes back exactly; anything else is named and refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fedgrpo.ground.codec import Folded, Key, fold, unfold
from fedgrpo.ground.errors import ProtocolError, RunError
from fedgrpo.ground.kept import read_kept, write_kept


@dataclass(frozen=True)
class Leaf:
    name: str
    marks: tuple[int, ...]
    key: Key | None = None


@dataclass(frozen=True)
class Tree:
    share: Annotated[float, lambda value: 0 <= value <= 1]
    leaves: Mapping[int, list[Leaf]]
    first: Leaf | None
    depths: list[list[int]]
    flags: tuple[bool, ...] = ()
    weights: NDArray[np.float32] | None = None


LEAVES = st.builds(
    Leaf,
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.none() | st.binary(min_size=32, max_size=32),
)
TREES = st.builds(
    Tree,
    st.floats(0, 1),
    st.dictionaries(st.integers(), st.lists(LEAVES, max_size=3), max_size=3),
    st.none() | LEAVES,
    st.lists(st.lists(st.integers(), max_size=3), max_size=3),
    st.lists(st.booleans(), max_size=3).map(tuple),
)
TREE = Tree(0.5, {1: [Leaf("a", (1, 2))]}, None, [[1], [], [2, 3]])


@pytest.mark.slow
@given(TREES)
def test_nested_values_come_back_also_through_text(tree: Tree) -> None:
    folded = fold(tree)
    assert unfold(Tree, folded) == tree
    assert unfold(Tree, Folded.from_json(folded.to_json(), folded.arrays)) == tree


def test_scalars_of_a_list_of_dataclasses_are_one_flat_list_each() -> None:
    scalars = fold(TREE).scalars
    assert scalars["share"] == 0.5
    assert scalars["leaves[][].name"] == ["a"]
    assert scalars["leaves[][].marks[]"] == [1, 2]
    assert scalars["depths[]#"] == [1, 0, 2]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("share", 1),
        ("share", 1.5),
        ("share", float("nan")),
        ("leaves#", 2),
        ("leaves[]#", [2]),
        ("leaves[]#", [True]),
        ("leaves[][].name", "a"),
        ("leaves[][].key#", [2]),
        ("first#", 1),
        ("depths[]#", [1, -1, 3]),
        ("flags#", 10**18),
    ],
)
def test_what_does_not_fit_its_type_is_refused_by_its_place(path: str, value: Any) -> None:
    folded = fold(TREE)
    folded.scalars[path] = value
    with pytest.raises(ProtocolError, match="field '"):
        unfold(Tree, folded)


def test_a_value_comes_back_from_its_file(tmp_path: Path) -> None:
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    write_kept(tmp_path / "kept", Tree(0.0, {}, None, [], weights=weights), mode=0o600)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    back = read_kept(Tree, tmp_path / "kept").weights
    assert back is not None
    np.testing.assert_array_equal(back, weights)


def test_a_file_of_another_version_is_refused_with_a_cure(tmp_path: Path) -> None:
    save_file({"adapter": np.zeros(2)}, tmp_path / "kept", metadata={"fedgrpo": '{"round": 1}'})
    with pytest.raises(RunError, match="another version") as caught:
        read_kept(Tree, tmp_path / "kept")
    assert "restore it" in caught.value.cure
