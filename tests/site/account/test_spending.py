"""The account survives crashes and other processes, and nothing in it can be changed unnoticed."""

import contextlib
import json
import multiprocessing
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import PolicyError
from fedgrpo.site import Entry, Refusal, SpendingFile
from fedgrpo.site.account.spending import parse


def entry(number: int, noise: float = 2.0, unit: str = "prompt") -> Entry:
    return Entry("2026-11-21T12:00:00", 1, number, f"{number:064x}", unit, noise, 0.1)


def anything(entries: Sequence[Entry]) -> None:
    pass


def filled(path: Path, count: int = 3) -> SpendingFile:
    file = SpendingFile(path)
    for number in range(count):
        assert file.charge(entry(number), anything)
    return file


def at_most(limit: int, entries: Sequence[Entry]) -> None:
    if len(entries) > limit:
        raise PolicyError("too many", code=Refusal.ROUNDS)


def test_what_was_charged_is_read_again(tmp_path: Path) -> None:
    filled(tmp_path / "spent.jsonl")
    assert SpendingFile(tmp_path / "spent.jsonl").read().entries == tuple(map(entry, range(3)))


def test_a_file_that_is_not_there_yet_has_spent_nothing(tmp_path: Path) -> None:
    assert SpendingFile(tmp_path / "spent.jsonl").read().entries == ()
    assert not (tmp_path / "spent.jsonl").exists()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "spent.jsonl"
    path.touch(0o666)
    path.chmod(0o666)
    filled(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_plan_is_counted_once(tmp_path: Path) -> None:
    file = filled(tmp_path / "spent.jsonl")
    assert not file.charge(replace(entry(1), at="later"), anything)
    assert len(file.read().entries) == 3


def test_a_refused_release_is_not_counted(tmp_path: Path) -> None:
    file = filled(tmp_path / "spent.jsonl")
    with pytest.raises(PolicyError, match="too many"):
        file.charge(entry(3), lambda entries: at_most(3, entries))
    assert len(file.read().entries) == 3


def test_a_charge_is_on_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spent.jsonl"
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append("file" if stat.S_ISREG(os.fstat(descriptor).st_mode) else "folder")
        assert path.read_bytes().endswith(b"\n"), "written whole before it is synced"
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    file = filled(path, 1)
    assert synced == ["file", "folder"]
    file.charge(entry(1), anything)
    assert synced == ["file", "folder", "file"]


@hypothesis_settings(deadline=None, max_examples=200)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_makes_the_account_no_smaller(place: int, flip: int) -> None:
    content = bytearray(CONTENT)
    content[place % len(content)] ^= flip
    try:
        history = parse(bytes(content))
    except PolicyError:
        return
    # The last line may look torn, or its end be gone: it counts all the same.
    assert len(history.counted) == 3
    assert history.counted[:2] == tuple(map(entry, range(2)))


@pytest.mark.parametrize("order", [[1, 2], [0, 2], [1, 0, 2], [0, 1, 1, 2]])
def test_a_line_cannot_be_removed_moved_or_doubled(order: list[int]) -> None:
    lines = CONTENT.splitlines(keepends=True)
    with pytest.raises(PolicyError, match="changed"):
        parse(b"".join(lines[i] for i in order))


@pytest.mark.slow
@hypothesis_settings(deadline=None, max_examples=60)
@given(kept=st.integers(0, 10**6), more=st.integers(0, 10**6))
def test_a_torn_last_line_is_counted_and_the_account_goes_on(
    tmp_path_factory: pytest.TempPathFactory, kept: int, more: int
) -> None:
    """A crash may cut the file anywhere after the first two lines, and again while it is mended."""
    path = tmp_path_factory.mktemp("site") / "spent.jsonl"
    lines = CONTENT.splitlines(keepends=True)
    whole = b"".join(lines[:2])
    cut = 1 + kept % (len(lines[2]) - 1)
    path.write_bytes(whole + lines[2][:cut])
    file = SpendingFile(path)
    assert len(file.read().counted) == 3
    file.charge(entry(7, noise=0.5), anything)
    mended = path.read_bytes()
    assert len(file.read().entries) == 4
    start = len(whole) + cut
    path.write_bytes(mended[: start + more % (len(mended) - start)])
    assert len(file.read().counted) >= 3
    file.charge(entry(8), anything)
    file.charge(entry(9), anything)
    assert len(file.read().entries) >= 5
    assert file.read().torn == b""


def test_a_torn_line_counts_as_the_dearest_release_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "spent.jsonl"
    path.write_bytes(CONTENT + b'{"previous": "ab')
    file = SpendingFile(path)
    file.charge(entry(5, noise=0.7), anything)
    stand_in = file.read().entries[3]
    assert (stand_in.noise_multiplier, stand_in.sample_rate) == (0.7, 0.1)
    assert stand_in.torn
    assert len(file.read().entries) == 5


def test_a_plan_whose_line_was_torn_is_charged_when_it_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "spent.jsonl"
    path.write_bytes(CONTENT[:-20])
    file = SpendingFile(path)
    assert file.charge(entry(2), anything)
    assert len(file.read().entries) == 4


def test_a_torn_line_counts_in_the_decision_too(tmp_path: Path) -> None:
    path = tmp_path / "spent.jsonl"
    path.write_bytes(CONTENT[:-20])
    with pytest.raises(PolicyError, match="too many"):
        SpendingFile(path).charge(entry(5), lambda entries: at_most(3, entries))


def test_a_line_of_other_types_is_no_entry(tmp_path: Path) -> None:
    values = json.loads(CONTENT.splitlines()[0]) | {"noise_multiplier": "2.0"}
    path = tmp_path / "spent.jsonl"
    path.write_text(json.dumps(values) + "\n" + CONTENT.splitlines()[1].decode() + "\n")
    with pytest.raises(PolicyError, match="changed"):
        SpendingFile(path).read()


@pytest.mark.parametrize("kind", ["folder", "link", "no folder"])
def test_an_account_that_cannot_be_kept_refuses(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "spent.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "missing" / "spent.jsonl"
    with pytest.raises(PolicyError) as caught:
        SpendingFile(path).charge(entry(1), anything)
    assert caught.value.code == Refusal.SPENT_FILE


def test_a_disk_that_fails_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = filled(tmp_path / "spent.jsonl")
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(PolicyError):
        file.charge(entry(9), anything)


def _spend(path: Path, first: int) -> None:
    file = SpendingFile(path)
    for number in range(first, first + 20):
        with contextlib.suppress(PolicyError):
            file.charge(entry(number), lambda entries: at_most(30, entries))


@pytest.mark.slow
def test_two_processes_never_both_spend_the_last_of_a_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "spent.jsonl"
    workers = [context.Process(target=_spend, args=(path, 100 * n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(SpendingFile(path).read().entries) == 30


def _made() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder) / "spent.jsonl")
        return (Path(folder) / "spent.jsonl").read_bytes()


CONTENT = _made()
"""Three charged releases as they lie on disk."""


def test_lines_of_versions_without_a_secret_still_count(tmp_path: Path) -> None:
    path = tmp_path / "spent.jsonl"
    assert b"secret" not in CONTENT, "as they were written before"
    path.write_bytes(CONTENT)
    file = SpendingFile(path)
    assert file.charge(replace(entry(3), secret="ab"), anything)
    assert [made.secret for made in file.read().entries] == ["", "", "", "ab"]


def test_the_same_plan_under_another_secret_is_charged_again(tmp_path: Path) -> None:
    file = SpendingFile(tmp_path / "spent.jsonl")
    asked = [replace(entry(1), secret=secret) for secret in ("", "ab", "cd", "ab", "")]
    assert [file.charge(one, anything) for one in asked] == [True, True, True, False, False]
    assert len(file.read().entries) == 3


@pytest.mark.parametrize("change", ['"secret": "cd"', '"secret": ""'])
def test_a_secret_cannot_be_changed_or_taken_out_unnoticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "spent.jsonl"
    file = SpendingFile(path)
    for number in range(2):
        file.charge(replace(entry(number), secret="ab"), anything)
    path.write_text(path.read_text().replace('"secret": "ab"', change, 1))
    with pytest.raises(PolicyError, match="changed"):
        file.read()
