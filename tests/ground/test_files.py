"""Files are whole, whoever is killed while writing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedgrpo.ground.files import (
    append_line,
    make_file,
    replace_file,
    sweep_drafts,
    whole_bytes,
)
from tests.federation.kills import KilledError, Power


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path, step: int) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.MonkeyPatch.context() as patches:
        Power(patches, step)
        with pytest.raises(KilledError):
            replace_file(path, b"new content")
    assert path.read_bytes() == (b"old" if step < 3 else b"new content")
    sweep_drafts(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    assert make_file(path, b"first")
    assert not make_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_private_file_stays_private_when_it_is_replaced(tmp_path: Path) -> None:
    for content in (b"1", b"2"):
        replace_file(tmp_path / "file", content, mode=0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_what_an_earlier_attempt_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, b"one\n", after=0)
    path.write_bytes(path.read_bytes() + b"tor")
    append_line(path, b"two\n", after=4)
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("torn", [b"", b"half", b"x" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"a\n", b"a\n" + b"y" * 70_000 + b"\n"])
def test_what_stays_before_a_torn_line_is_told_from_the_end(
    whole: bytes, torn: bytes, tmp_path: Path
) -> None:
    (file := tmp_path / "lines").write_bytes(whole + torn)
    assert whole_bytes(file) == len(whole)
