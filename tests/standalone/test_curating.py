"""The command: from a file and rules to files, a page, and words that show no prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.standalone.curation.page import binned, counted
from tests.standalone.scenario import SCENARIO, write

HALVES = """
def halves(completions):
    return [float(n % 2) for n in range(len(completions))]
"""
EVIL = "<script>alert(1)</script>"


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["curate", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": f"sort {n:03d}=", "answer": "1", "kind": EVIL} for n in range(8)]
    lines += [{"prompt": "sort 7=", "answer": "7", "kind": "easy"}] * 2
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "rules.toml").write_text('markers = ["TODO"]\n')
    return tmp_path / "own.jsonl"


def test_the_command_tells_counts_and_writes_a_page_that_escapes(file: Path) -> None:
    code, printed = command("own.jsonl", "--rules", "rules.toml")
    assert code == 0
    assert "1 rows go: exact" in printed
    assert "9 of 10 rows stay, 9 units" in printed
    assert "sort" not in printed
    page = (file.parent / "own-curated/curation.html").read_text()
    assert EVIL not in page
    assert "9 of 10 rows stay" in page
    assert "Column kind" in page
    code, printed = command("own-curated/kept.jsonl", "--check")
    assert code == 0
    assert "as it was curated" in printed
    assert command("own.jsonl", "--check")[0] == 2
    assert command("own.jsonl")[0] == 2


@pytest.mark.slow
def test_difficulty_is_told_by_the_policy_that_is_named(file: Path) -> None:
    write(file.parent, f'{SCENARIO}[reward]\nfunctions = "halves.py:halves"\n')
    (file.parent / "halves.py").write_text(HALVES)
    (file.parent / "rules.toml").write_text("samples = 4\n")
    assert command("own.jsonl", "--rules", "rules.toml")[0] == 2
    code, printed = command("own.jsonl", "--rules", "rules.toml", "--by", "small.toml")
    assert code == 0, printed
    manifest = json.loads((file.parent / "own-curated/manifest.json").read_text())
    assert manifest["policy"] == "base"
    assert manifest["kept"]["rows"] == 9
    assert "difficulty draws answers" in manifest["privacy"]
    assert "Share of answers" in (file.parent / "own-curated/curation.html").read_text()


def test_bins_hold_every_value_once() -> None:
    bars = binned({0: 1.0, 1: 5.0, 2: 5.0, 3: 9.0}, {0, 1})
    assert sum(bar.before for bar in bars) == 4
    assert sum(bar.after for bar in bars) == 2
    assert [(bar.before, bar.after) for bar in binned({0: 3.0, 1: 3.0}, {1})] == [(2, 1)]
    assert [(b.label, b.before, b.after) for b in counted({0: "x", 1: "", 2: "x"}, {0})] == [
        ("(none)", 1, 0),
        ("x", 2, 1),
    ]
