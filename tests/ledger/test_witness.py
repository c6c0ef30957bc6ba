"""A witness signs only what extends what it signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedgrpo.ground.codec import fold
from fedgrpo.ground.errors import LedgerError
from fedgrpo.ledger import FILE, Expected, Ledger, Witness, replay
from fedgrpo.ledger.entries import entered_order
from tests.ledger.runs import (
    COMMITTEE,
    HASHES,
    MEMBER_SEEDS,
    MEMBERS,
    SEED,
    changed,
    head,
    last,
    round_entry,
    write_run,
)

EXPECTED = Expected(head().run, COMMITTEE.fingerprint())
FIRST, SECOND = round_entry(1, COMMITTEE), round_entry(2, COMMITTEE)


def lines_of(folder: Path, *entries: object, seed: bytes = SEED) -> list[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / FILE, seed)
    for entry in entries:
        ledger.commit(ledger.prepare(entry))  # type: ignore[arg-type]
    return ledger.lines()


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_witness_signs_each_checkpoint_of_a_ledger_that_grows(tmp_path: Path, step: int) -> None:
    write_run(tmp_path / "like")
    lines = lines_of(tmp_path / "run", head(COMMITTEE), FIRST, SECOND, last(tmp_path / "like"))
    checkpoints, kept = replay(b"".join(lines)).checkpoints, None
    for start in range(0, 4, step):
        witness = Witness(EXPECTED, kept)
        assert witness.size == start
        witness.take(start, lines[start : start + step])
        signed = witness.sign(MEMBER_SEEDS[0])
        assert signed.holds
        assert (signed.checkpoint, signed.member) == (checkpoints[start + step - 1], MEMBERS[0])
        kept = witness.signed


def test_what_a_witness_keeps_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    rounds = [
        changed(FIRST, round=number, adapter=FIRST.adapter, result=FIRST.adapter)
        for number in range(1, 64)
    ]
    lines = lines_of(tmp_path, head(COMMITTEE), *rounds)
    sizes = []
    for count in (16, 64):
        witness = Witness(EXPECTED)
        witness.take(0, lines[:count])
        sizes.append(len(fold(witness.signed).to_json()))
    assert abs(sizes[1] - sizes[0]) < 200


def test_lines_that_were_signed_before_are_passed_over(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, head(COMMITTEE), FIRST, SECOND)
    witness = Witness(EXPECTED)
    witness.take(0, lines[:2])
    witness.take(0, lines)
    again = Witness(EXPECTED, witness.signed)
    again.take(1, lines[1:])
    assert again.sign(MEMBER_SEEDS[0]) == witness.sign(MEMBER_SEEDS[0])
    assert witness.size == 3


def test_a_fork_is_not_signed(tmp_path: Path) -> None:
    shown = lines_of(tmp_path / "shown", head(COMMITTEE), FIRST)
    told = lines_of(tmp_path / "told", head(COMMITTEE), changed(FIRST, finished=9), SECOND)
    witness = Witness(EXPECTED)
    witness.take(0, shown)
    with pytest.raises(LedgerError, match="does not follow"):
        witness.take(2, told[2:])


def test_entries_are_not_taken_back_or_left_out(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, head(COMMITTEE), FIRST, SECOND)
    witness = Witness(EXPECTED)
    witness.take(0, lines[:2])
    for start, some in ((0, lines[:1]), (3, []), (3, lines[2:])):
        with pytest.raises(LedgerError, match="do not extend the 2"):
            witness.take(start, some)


def test_a_ledger_of_another_run_settings_or_key_is_not_signed(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "run", head(COMMITTEE), FIRST)
    for expected in (
        Expected("cd" * 16, COMMITTEE.fingerprint()),
        Expected(head().run, head().fingerprint),
    ):
        with pytest.raises(LedgerError, match="the ledger is of run"):
            Witness(expected).take(0, lines)
    # Another server's entry, which follows the first one's in all but the signature.
    ledger = Ledger(tmp_path / FILE, bytes(32))
    ledger._read.take(lines[0])
    forged = ledger.prepare(FIRST).encode()
    witness = Witness(EXPECTED)
    witness.take(0, lines[:1])
    with pytest.raises(LedgerError, match="signature is not the server's"):
        witness.take(1, [forged])


@pytest.mark.parametrize(
    "lie",
    [{"adapter": HASHES[7]}, {"clipping_norm": 0.5}, {"basis": HASHES[7]}, {"model": HASHES[7]}],
    ids=["adapter", "clipping norm", "basis", "model"],
)
def test_an_entry_of_another_order_than_the_member_followed_is_not_signed(
    tmp_path: Path, lie: dict[str, object]
) -> None:
    lines = lines_of(tmp_path, head(COMMITTEE), FIRST, changed(SECOND, **lie))
    ordered = entered_order(SECOND)
    with pytest.raises(LedgerError, match="round 2 was ordered otherwise than the ledger says"):
        Witness(replace(EXPECTED, round=2, order=ordered)).take(0, lines)
    # Of a round in which it was ordered nothing, it knows nothing.
    witness = Witness(replace(EXPECTED, round=1, order=entered_order(FIRST)))
    witness.take(0, lines)
    assert witness.size == 3


def test_an_entry_of_the_order_that_the_member_followed_is_signed(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, head(COMMITTEE), FIRST, SECOND)
    witness = Witness(replace(EXPECTED, round=2, order=entered_order(SECOND)))
    witness.take(0, lines)
    assert witness.sign(MEMBER_SEEDS[0]).checkpoint.size == 3
