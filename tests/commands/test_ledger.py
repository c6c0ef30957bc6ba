"""``fedgrpo ledger verify``: what it prints, and its exit codes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli import app
from fedgrpo.ledger import FILE, Ledger, add_cosignature, cosign, replay
from tests.ledger.runs import (
    COMMITTEE,
    MEMBER_SEEDS,
    MEMBERS,
    SEED,
    WEIGHTS,
    head,
    round_entry,
    write_run,
)

KEY = Ledger(Path("unused"), SEED).public_key


def run(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(app, ["ledger", "verify", *arguments])
    assert result.exit_code == code, result.output
    return str(result.output)


def test_a_ledger_that_fits_is_summed_up(tmp_path: Path) -> None:
    printed = run(str(write_run(tmp_path)), "--key", KEY, code=0)
    assert "2 rounds and its end. Everything fits." in printed
    assert "client: epsilon 0.2335 at delta 1e-05 against server colluding with all" in printed
    assert f"signed by {KEY}" in printed


def test_a_run_that_has_not_ended_is_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path, head(COMMITTEE), round_entry(1, COMMITTEE))
    checkpoint = replay((tmp_path / FILE).read_bytes()).checkpoints[-1]
    add_cosignature(tmp_path, cosign(checkpoint, MEMBER_SEEDS[0]))
    printed = run(str(tmp_path), code=0)
    assert "1 rounds so far: the run has not ended" in printed
    assert f"member {MEMBERS[0]} vouches for the first 2 entries" in printed


def test_one_that_does_not_fit_ends_with_the_place_and_code_1(tmp_path: Path) -> None:
    path = write_run(tmp_path) / FILE
    path.write_bytes(path.read_bytes().replace(b'"finished":12', b'"finished":11', 1))
    assert "ledger.jsonl, line 2: its root is not that" in run(str(tmp_path), code=1)


def test_another_adapter_ends_with_code_1(tmp_path: Path) -> None:
    (write_run(tmp_path) / WEIGHTS).write_bytes(b"")
    assert "weights.bin is not the file that line 4" in run(str(tmp_path), code=1)


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_a_place_without_a_ledger_is_refused_with_code_2(tmp_path: Path, name: str) -> None:
    assert "holds no ledger.jsonl" in run(str(tmp_path / name), code=2)
