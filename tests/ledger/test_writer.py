"""A ledger that was cut off goes on where it was, and any other is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ledger import FILE, Ledger, verify
from tests.ledger.runs import SEED, head, round_entry, write_run


def prepared(folder: Path) -> tuple[bytes, str]:
    """A ledger of two entries, and the line of the third."""
    ledger = Ledger(folder / FILE, SEED)
    for entry in (head(), round_entry(1)):
        ledger.commit(ledger.prepare(entry))
    return (folder / FILE).read_bytes(), ledger.prepare(round_entry(2))


def test_a_torn_line_is_made_whole(tmp_path: Path) -> None:
    content, line = prepared(tmp_path)
    for written in (*range(0, len(line), 9), len(line) - 1, len(line)):
        (tmp_path / FILE).write_bytes(content + line.encode()[:written])
        ledger = Ledger(tmp_path / FILE, SEED)
        ledger.recover(2, line)
        assert ledger.size == 3
        assert (tmp_path / FILE).read_bytes() == content + line.encode()


def test_the_same_entry_has_the_same_line_again(tmp_path: Path) -> None:
    _, line = prepared(tmp_path)
    ledger = Ledger(tmp_path / FILE, SEED)
    first = Ledger(tmp_path / "none", SEED).prepare(head())
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    assert lines[0] == first
    ledger.recover(1, lines[1])
    assert ledger.prepare(round_entry(2)) == line


@pytest.mark.parametrize("kept", [0, 1])
def test_a_ledger_that_lost_lines_is_refused(tmp_path: Path, kept: int) -> None:
    content, line = prepared(tmp_path)
    (tmp_path / FILE).write_bytes(b"".join(content.splitlines(keepends=True)[:kept]))
    with pytest.raises(LedgerError, match="not the ledger that the checkpoint belongs to"):
        Ledger(tmp_path / FILE, SEED).recover(2, line)


def test_a_ledger_with_other_lines_behind_is_refused(tmp_path: Path) -> None:
    content, line = prepared(tmp_path)
    for behind in (b"x", line.encode() + b"x", line.encode()[1:]):
        (tmp_path / FILE).write_bytes(content + behind)
        with pytest.raises(LedgerError):
            Ledger(tmp_path / FILE, SEED).recover(2, line)
        assert (tmp_path / FILE).read_bytes() == content + behind, "nothing was written over"


def test_a_ledger_that_was_changed_is_refused(tmp_path: Path) -> None:
    content, line = prepared(tmp_path)
    (tmp_path / FILE).write_bytes(content.replace(b'"cohort":12', b'"cohort":13'))
    with pytest.raises(LedgerError, match="line 2: its root"):
        Ledger(tmp_path / FILE, SEED).recover(2, line)


def test_a_line_that_was_not_prepared_for_this_place_is_not_appended(tmp_path: Path) -> None:
    ledger = Ledger(write_run(tmp_path / "other") / FILE, SEED)
    with pytest.raises(LedgerError):
        ledger.commit(prepared(tmp_path)[1])
    verify(tmp_path / "other")
