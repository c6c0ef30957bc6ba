"""The record of a curation: of these files alone, and shown by a commitment that says nothing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fedgrpo.data.curation.curate import Curated, curate
from fedgrpo.data.curation.manifest import (
    COMMITMENT,
    KEPT,
    MANIFEST,
    REJECTED,
    SALT,
    check_manifest,
    commitment,
    privacy_words,
)
from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.prompts import load_prompts
from fedgrpo.data.sources import Source
from fedgrpo.federation.rehearsal.prompt_check import Found, _uncurated, problems
from fedgrpo.ground.errors import DataError, RunError
from fedgrpo.site import Policy

LINES = [
    {"prompt": "add 1+2=", "answer": "3", "source": "x", "licence": "CC0"},
    {"prompt": "add 1+2=", "answer": "3", "source": "x", "licence": "CC0"},
    {"prompt": "mail a@b.example", "answer": "", "source": "x", "licence": "CC0"},
    {"prompt": [{"role": "user", "content": "grüße"}], "source": "x", "licence": "CC0"},
]
RULES = Rules.model_validate({"personal": ("email",), "required": ("source", "licence")})


@pytest.fixture
def made(tmp_path: Path) -> Curated:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in LINES) + "broken\n")
    return curate(Source(str(file)), RULES, tmp_path / "out", None, "")


def test_kept_and_rejected_rows_are_what_they_were_and_closed_to_others(made: Curated) -> None:
    kept = load_prompts(str(made.folder / KEPT))
    assert [row.for_model() for row in kept] == [LINES[0]["prompt"], LINES[3]["prompt"]]
    assert kept[0].columns == {k: v for k, v in LINES[0].items() if k != "prompt"}
    rejected = [json.loads(line) for line in (made.folder / REJECTED).read_text().splitlines()]
    assert [(row["row"], row["reasons"]) for row in rejected] == [
        (2, ["exact: as row 1"]),
        (3, ["personal: looks like email"]),
    ]
    assert made.manifest.unusable == 1
    assert {count.rule: count.rows for count in made.manifest.counts}["personal"] == 1
    for file in made.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700


def test_what_stays_is_curated_again_to_the_same_bytes(made: Curated, tmp_path: Path) -> None:
    again = curate(Source(str(made.folder / KEPT)), RULES, tmp_path / "again", None, "")
    assert again.manifest.kept == made.manifest.kept
    assert again.manifest.rejected.rows == 0
    assert again.commitment != made.commitment, "another salt"
    with pytest.raises(RunError, match="not empty"):
        curate(Source(str(made.folder / KEPT)), RULES, tmp_path / "again", None, "")


def test_the_commitment_has_one_length_and_is_of_salt_and_manifest(made: Curated) -> None:
    salt, text = (made.folder / SALT).read_bytes(), (made.folder / MANIFEST).read_bytes()
    assert made.commitment == commitment(salt, text) != commitment(bytes(32), text)
    assert len(made.commitment) == 64
    assert check_manifest(made.folder / KEPT) == made.manifest


def test_other_prompts_another_manifest_or_none_do_not_fit(made: Curated, tmp_path: Path) -> None:
    kept = made.folder / KEPT
    with pytest.raises(DataError, match="cannot be read"):
        check_manifest(tmp_path / "prompts.jsonl")
    (made.folder / MANIFEST).write_text(
        (made.folder / MANIFEST).read_text().replace('"unusable": 1', '"unusable": 0')
    )
    with pytest.raises(DataError, match=COMMITMENT):
        check_manifest(kept)
    kept.write_text(kept.read_text() + "\n")
    with pytest.raises(DataError, match="is not the file"):
        check_manifest(kept)


def test_a_policy_that_asks_for_it_keeps_other_prompts_from_being_checked(
    made: Curated, tmp_path: Path
) -> None:
    policy = Policy(prompts_declared=10, longest_prompt_tokens=10, curated=True)
    found = Found(2, 2, "", "", "", 5, 0, {}, _uncurated(str(made.folder / KEPT)))
    assert list(problems(found, policy)) == []
    other = replace(found, uncurated=_uncurated(str(tmp_path / "prompts.jsonl")))
    assert "fedgrpo curate" in next(problems(other, policy))


def test_nothing_that_stays_is_refused_with_the_rules_that_took_it(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(LINES[2]))
    with pytest.raises(DataError, match=r"1 for personal \(looks like email\)"):
        curate(Source(str(file)), RULES, tmp_path / "out", None, "")
    assert not (tmp_path / "out").exists()


def test_for_whom_epsilon_holds_is_said_without_more_than_is_so() -> None:
    assert "3 C" in privacy_words("", near=True, drawn=False)
    assert "uncurated one: no rule looks" in privacy_words("who", near=True, drawn=False)
    assert "uncurated one: no rule looks" not in privacy_words("who", near=True, drawn=True)
