"""A store of experiences: nothing changes unseen, nothing is read without the key, what is deleted
is gone and the rest still verifies.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.ground.crypto import new_key
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.records import Experience
from fedgrpo.site.experience.entries import Promise, content_hash, plain_content
from fedgrpo.site.experience.store import CHAIN, CONTENTS, KEY, PROMISES, Store

SECRET = "the patient said so"


def made(prompt: str = "a", at: float = 0.0, completion: str = SECRET) -> Experience:
    return Experience(
        prompt=prompt,
        completion=completion,
        reward=0.5,
        rewards={"exact": 0.5, "other": None},
        adapter="c" * 64,
        run="ward",
        round=7,
        at=at,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "experience")
    found.append([made("a", 1.0), made("b", 2.0)])
    found.append([made("a", 3.0)])
    return found


def test_what_was_added_is_read_in_order_by_a_process_that_has_the_key(store: Store) -> None:
    again = Store(store.folder)
    assert [(n, each.prompt, each.at) for n, each in again.read()] == [
        (1, "a", 1.0),
        (2, "b", 2.0),
        (3, "a", 3.0),
    ]
    assert again.verify().entries == 3


def test_nothing_of_a_content_is_on_the_disk_and_nobody_else_may_look(store: Store) -> None:
    for file in store.folder.iterdir():
        assert SECRET.encode() not in file.read_bytes()
        if file.suffix in {".jsonl", ".key"}:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    (store.folder / KEY).write_bytes(new_key())
    with pytest.raises(RunError, match="another key"):
        list(Store(store.folder).read())


@pytest.mark.parametrize("name", [CHAIN, CONTENTS])
@pytest.mark.parametrize("way", ["swapped", "changed", "first gone"])
def test_no_entry_is_changed_moved_or_left_out_unseen(store: Store, name: str, way: str) -> None:
    store.promise()
    file = store.folder / name
    found = file.read_text().splitlines()
    trees = [json.loads(line) for line in found]
    if way == "swapped":
        for key in trees[0].keys() - {"number"}:
            trees[0][key], trees[1][key] = trees[1][key], trees[0][key]
    elif way == "changed":
        key = "content" if name == CHAIN else "sealed"
        trees[1][key] = trees[1][key][:-6] + "abcd" + trees[1][key][-2:]
    elif name == CHAIN:
        trees = trees[1:]
    else:
        pytest.skip("a content that is gone was deleted, and its link says that it was there")
    file.write_text("".join(f"{json.dumps(tree)}\n" for tree in trees))
    with pytest.raises(RunError):
        Store(store.folder).verify()


def test_a_shorter_chain_is_not_the_one_that_was_promised(store: Store) -> None:
    shown = store.promise()
    assert store.verify(shown).promises == 1
    file = store.folder / CHAIN
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines()[:2]))
    with pytest.raises(RunError, match=shown):
        Store(store.folder).verify()
    with pytest.raises(RunError, match="no promise"):
        Store(store.folder.with_name("other")).verify("0" * 64)


def test_a_commitment_has_one_length_and_two_of_one_store_differ(store: Store) -> None:
    first, second = store.promise(), store.promise()
    store.append([made()])
    assert {len(first), len(second), len(store.promise())} == {64}
    assert first != second
    assert Promise(0, "0" * 64, "00" * 32, 0.0).commitment != first
    assert store.verify(first).entries == 4


def test_what_is_deleted_is_gone_and_the_rest_verifies(store: Store) -> None:
    shown = store.promise()
    before = (store.folder / CHAIN).read_bytes()
    assert store.forget(prompt="a") == 2
    assert [n for n, _ in store.read()] == [2]
    assert (store.folder / CHAIN).read_bytes() == before
    found = store.verify(shown)
    assert (found.entries, found.deleted) == (3, 2)
    store.append([made("c", 4.0)])
    assert [n for n, _ in store.read()] == [2, 4]


def test_without_its_salt_a_content_cannot_be_tried() -> None:
    hashes = {content_hash(plain_content(new_key(), made())) for _ in range(20)}
    assert len(hashes) == 20


def test_entries_go_by_age_and_by_prompt_and_never_by_their_number(store: Store) -> None:
    store.append([made("b", at) for at in (4.0, 5.0, 6.0)])
    assert store.forget(most=2) == 2
    assert [(each.prompt, each.at) for _, each in store.read()] == [
        ("a", 1.0),
        ("a", 3.0),
        ("b", 5.0),
        ("b", 6.0),
    ]
    assert store.forget(before=5.0) == 2
    assert [each.prompt for _, each in store.read()] == ["b", "b"]


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 200), name=st.sampled_from([CHAIN, CONTENTS, PROMISES]))
def test_a_line_that_a_crash_tore_is_no_entry_and_is_written_over(
    tmp_path_factory: pytest.TempPathFactory, cut: int, name: str
) -> None:
    store = Store(tmp_path_factory.mktemp("torn"))
    store.append([made("a", 1.0)])
    store.promise()
    whole = (store.folder / name).read_bytes()
    with (store.folder / name).open("ab") as file:
        file.write(whole[: min(cut, len(whole) - 1)])
    again = Store(store.folder)
    assert again.verify().entries == 1
    again.append([made("b", 2.0)])
    again.promise()
    assert [each.prompt for _, each in again.read()] == ["a", "b"]
    assert again.verify().promises == 2


def test_a_content_without_its_link_is_dropped_before_another_takes_its_number(
    store: Store,
) -> None:
    file = store.folder / CHAIN
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines()[:2]))
    again = Store(store.folder)
    assert [n for n, _ in again.read()] == [1, 2]
    again.append([made("c", 9.0)])
    assert [(n, each.prompt) for n, each in again.read()] == [(1, "a"), (2, "b"), (3, "c")]


def test_the_commands_show_what_there_is(store: Store, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        place = [*arguments, "--store", str(store.folder)]
        result = CliRunner().invoke(app, ["experience", *place])
        assert result.exit_code == 0, result.output
        return result.output

    assert len(said("list").splitlines()) == 3
    assert SECRET not in said("list")
    assert SECRET in said("show", "2")
    shown = said("commit").strip()
    assert "sound: 3 entries, of 0" in said("verify", "--commitment", shown)
    said("export", str(tmp_path / "all.jsonl"))
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 3
    assert "1 contents deleted" in said("forget", "--prompt", "b")
    assert CliRunner().invoke(app, ["experience", "forget"]).exit_code == 2
    assert CliRunner().invoke(app, ["experience", "show", "2"]).exit_code == 2
