"""A stamp tells prompts that were looked at from all others, and never opens them."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import DataError, PolicyError
from fedgrpo.settings import Settings
from fedgrpo.site import Policy, Refusal
from fedgrpo.site.checked import (
    Checked,
    check_prompts,
    check_unchanged,
    files_stamp,
    keep_checked,
    looked_at,
    proposed,
    read_checked,
)
from fedgrpo.site.node_folder import folder_beside


def test_a_file_that_changes_has_another_stamp(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("a")
    os.utime(file, ns=(1, 1))
    first = files_stamp(str(file))
    assert files_stamp(str(file)) == first
    os.utime(file, ns=(1, 2))
    later = files_stamp(str(file))
    file.write_text("ab")
    os.utime(file, ns=(1, 1))
    assert len({first, later, files_stamp(str(file))}) == 3


def test_a_file_has_one_stamp_by_whatever_way_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site file makes paths absolute, and people type relative ones."""
    file = tmp_path / "p.jsonl"
    file.write_text("a")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [str(file), "p.jsonl", "./p.jsonl", str(tmp_path / "link" / "p.jsonl")]
    assert len({files_stamp(name) for name in names}) == 1


def test_a_folder_has_the_stamp_of_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "d" / "train").mkdir(parents=True)
    inner = tmp_path / "d" / "train" / "data.arrow"
    inner.write_text("a")
    first = files_stamp(str(tmp_path / "d"))
    inner.write_text("ab")
    assert files_stamp(str(tmp_path / "d")) != first


@pytest.mark.parametrize("prompts", ["none.jsonl", "hf:some/name"])
def test_what_is_not_on_this_machine_has_none(tmp_path: Path, prompts: str) -> None:
    with pytest.raises(DataError, match="cannot be looked at"):
        files_stamp(str(tmp_path / prompts))


def test_a_stamp_comes_back_and_grows_by_columns_of_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    assert read_checked(folder) is None
    keep_checked(folder, Checked("a", {"": 3}))
    keep_checked(folder, Checked("a", {"patient": 2}))
    assert read_checked(folder) == Checked("a", {"": 3, "patient": 2})
    keep_checked(folder, Checked("b", {"patient": 1}))
    assert read_checked(folder) == Checked("b", {"patient": 1})
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "changed",
    [
        {"data": {"split": "test"}},
        {"data": {"unit": "patient"}},
        {"model": {"name": "another"}},
        {"model": {"revision": "refs/pr/7"}},
    ],
)
def test_rows_that_a_run_would_look_at_in_another_way_are_unchecked(
    tmp_path: Path, changed: dict[str, dict[str, str]]
) -> None:
    (tmp_path / "p.jsonl").write_text("{}")
    node = {"prompts": str(tmp_path / "p.jsonl"), "state": str(tmp_path / "node")}
    stamp = files_stamp(node["prompts"])
    keep_checked(tmp_path / "node", Checked(stamp, {looked_at(Settings()): 3}))
    check_prompts(node, Settings())
    with pytest.raises(PolicyError, match="not checked with this split") as refusal:
        check_prompts(node, Settings.from_mapping(changed))
    assert refusal.value.code == Refusal.UNCHECKED


def test_what_becomes_of_prompts_later_refuses_nothing_and_is_seen_after_the_charge(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.jsonl").write_text("{}")
    node = {"prompts": str(tmp_path / "p.jsonl"), "state": str(tmp_path / "node")}
    stamp = files_stamp(node["prompts"])
    keep_checked(tmp_path / "node", Checked(stamp, {looked_at(Settings()): 3}))
    check_unchanged(node, Settings(), Policy(prompts_declared=3))
    with pytest.raises(DataError, match="more units"):
        check_unchanged(node, Settings(), Policy(prompts_declared=2))
    (tmp_path / "p.jsonl").write_text("{}\n")
    check_prompts(node, Settings())
    with pytest.raises(DataError, match="have changed"):
        check_unchanged(node, Settings(), Policy(prompts_declared=3))
    (tmp_path / "p.jsonl").unlink()
    check_prompts(node, Settings())
    with pytest.raises(DataError, match="cannot be looked at"):
        check_unchanged(node, Settings(), Policy(prompts_declared=3))


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"files": "a"})])
def test_what_is_no_stamp_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "checked.json").write_text(content)
    assert read_checked(tmp_path) is None


@pytest.mark.parametrize(
    ("units", "round_number"),
    [(0, 0), (7, 7), (99, 99), (100, 100), (101, 110), (1873, 1900), (2000, 2000), (2001, 2100)],
)
def test_counts_are_rounded_up_to_two_digits(units: int, round_number: int) -> None:
    assert proposed(units) == round_number


@given(st.integers(1, 10**12))
def test_a_proposal_is_never_too_small_and_a_tenth_too_large_at_most(units: int) -> None:
    assert units <= proposed(units) < units * 1.1 + 1


def test_prompts_that_were_checked_without_their_manifest_do_not_do_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("a")
    config, folder = {"prompts": str(prompts)}, folder_beside(prompts)
    policy = Policy(curated=True)
    keep_checked(folder, Checked(files_stamp(str(prompts)), {"": 1}))
    check_unchanged(config, Settings(), Policy())
    with pytest.raises(DataError, match="manifest"):
        check_unchanged(config, Settings(), policy)
    keep_checked(folder, Checked(files_stamp(str(prompts)), {"patient": 1}, curated=True))
    check_unchanged(config, Settings(), policy)
