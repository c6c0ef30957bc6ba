"""``fedgrpo ledger verify``: what it prints, and its exit codes."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
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
    printed = run(str(tmp_path), code=3)
    assert "1 rounds so far. What is here fits, but the run has not ended" in printed
    assert "Everything fits" not in printed
    assert f"root:size {checkpoint.root}:2" in printed
    assert f"member {MEMBERS[0]} vouches for the first 2 entries" in printed


def test_one_that_does_not_fit_ends_with_the_place_and_code_1(tmp_path: Path) -> None:
    path = write_run(tmp_path) / FILE
    path.write_bytes(path.read_bytes().replace(b'"finished":12', b'"finished":11', 1))
    assert "ledger.jsonl, line 2: its root is not that" in run(str(tmp_path), code=1)


def test_a_root_that_the_reader_was_told_is_held_against_the_ledger(tmp_path: Path) -> None:
    checkpoints = replay((write_run(tmp_path) / FILE).read_bytes()).checkpoints
    for size, checkpoint in enumerate(checkpoints, start=1):
        run(str(tmp_path), "--expect", f"{checkpoint.root}:{size}", code=0)
    run(str(tmp_path), "--expect", f" {checkpoints[-1].root.upper()}:4\n", code=0)
    told = f"{checkpoints[1].root}:3"
    assert "ledger.jsonl, line 3: its root is" in run(str(tmp_path), "--expect", told, code=1)


def test_a_ledger_that_was_cut_off_is_found_out_by_the_root_that_was_told(tmp_path: Path) -> None:
    path = write_run(tmp_path) / FILE
    told = replay(path.read_bytes()).checkpoint
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    shutil.rmtree(tmp_path / WEIGHTS.split("/")[0])
    run(str(tmp_path), code=3)
    printed = run(str(tmp_path), "--expect", f"{told.root}:{told.size}", code=1)
    assert "has 2 entries, and had 4 when its root was told" in printed


@pytest.mark.parametrize("text", ["", "4", "ab:4", "0" * 64, "0" * 64 + ":0", "0" * 64 + ":-1"])
def test_what_is_no_root_and_size_is_refused_with_code_2(tmp_path: Path, text: str) -> None:
    assert "is no ROOT:SIZE" in run(str(write_run(tmp_path)), "--expect", text, code=2)


def test_another_adapter_ends_with_code_1(tmp_path: Path) -> None:
    (write_run(tmp_path) / WEIGHTS).write_bytes(b"")
    assert "weights.bin is not the file that line 4" in run(str(tmp_path), code=1)


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_a_place_without_a_ledger_is_refused_with_code_2(tmp_path: Path, name: str) -> None:
    assert "holds no ledger.jsonl" in run(str(tmp_path / name), code=2)
