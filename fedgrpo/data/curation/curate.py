"""``fedgrpo curate``: from a file of prompts to the rows that stay, and the record of why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fedgrpo.data.curation.checks import ROW_RULES
from fedgrpo.data.curation.manifest import (
    KEPT,
    REJECTED,
    FileHash,
    LooksAt,
    Manifest,
    RuleCount,
    keep_manifest,
    privacy_words,
)
from fedgrpo.data.curation.near import library_version
from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.curation.verdicts import Verdicts, judged
from fedgrpo.data.prompts import PromptRow, sort_rows
from fedgrpo.data.sources import Source
from fedgrpo.data.units import check_unit_column, units_of
from fedgrpo.ground.errors import DataError, RunError
from fedgrpo.ground.files import file_hash, replace_file

Difficulty = Callable[[Sequence[PromptRow], int], Mapping[int, float]]
"""Share of correct completions by position, of so many of each row."""


@dataclass(frozen=True)
class Curated:
    """What came of it, for the site's own people."""

    folder: Path
    manifest: Manifest
    commitment: str
    rows: Sequence[PromptRow]
    """Of the source."""
    verdicts: Verdicts
    solved: Mapping[int, float]
    """Share of correct completions by a row's position, where that was asked for."""


def curate(
    source: Source, rules: Rules, folder: Path, difficulty: Difficulty | None, policy: str
) -> Curated:
    """Write kept and rejected rows, the manifest and the commitment to it.

    Parameters
    ----------
    source:
        A file of this machine.
    rules:
        What to hold it against.
    folder:
        Must be empty, or not exist. Closed to others.
    difficulty:
        Asks the policy; None where the rules ask for none.
    policy:
        What the manifest says of it.

    Raises
    ------
    DataError
        If the source cannot be used, no row stays, or a person's column has gaps.
    RunError
        If the folder is not empty.
    SettingsError
        If a rule needs what is not there.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty", cure="name another --out, or clear it")
    rows, unusable = sort_rows(source)
    check_unit_column(rows, rules.person, source.place)
    solved = difficulty(rows, rules.samples) if difficulty else {}
    verdicts = judged(rows, rules, solved)
    kept = [rows[place] for place in verdicts.kept(len(rows))]
    if not kept:
        raise DataError(
            f"no row of {source.place} stays: " + _most(verdicts), cure="correct the rules"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write(folder / KEPT, [_line(row) for row in kept])
    _write(folder / REJECTED, [_rejected(rows[p], said) for p, said in verdicts.reasons.items()])
    manifest = Manifest(
        fedgrpo=version("fedgrpo"),
        rules=rules.model_dump(mode="json"),
        counts=_counts(verdicts, rules),
        near_reported=verdicts.reported,
        near_library=library_version() if rules.near else "",
        policy=policy,
        source=FileHash(len(rows), file_hash(Path(source.place).expanduser())),
        kept=FileHash(len(kept), file_hash(folder / KEPT)),
        rejected=FileHash(len(verdicts.reasons), file_hash(folder / REJECTED)),
        unusable=len(unusable),
        units=len(units_of(kept, rules.person)),
        privacy=privacy_words(rules.person, near=rules.near > 0, drawn=rules.samples > 0),
    )
    made = keep_manifest(folder, manifest)
    return Curated(folder, manifest, made, rows, verdicts, solved)


def _counts(verdicts: Verdicts, rules: Rules) -> list[RuleCount]:
    """Rows for each rule; every rule is there, and says what it looks at."""
    near: LooksAt = "rows of its unit" if rules.person else "other rows"
    looks: dict[str, LooksAt] = dict.fromkeys(ROW_RULES, "the row")
    looks |= {"exact": "rows of its unit", "near": near, "difficulty": "the row and the policy"}
    found = Counter(
        name for said in verdicts.reasons.values() for name in dict.fromkeys(n for n, _ in said)
    )
    return [RuleCount(name, seen, found[name]) for name, seen in looks.items()]


def _most(verdicts: Verdicts) -> str:
    found = Counter(f"{name} ({how})" for said in verdicts.reasons.values() for name, how in said)
    return ", ".join(f"{rows} for {name}" for name, rows in found.most_common(3))


def _line(row: PromptRow) -> str:
    return json.dumps(_tree(row), ensure_ascii=False, default=str)


def _rejected(row: PromptRow, said: Sequence[tuple[str, str]]) -> str:
    reasons = [f"{name}: {how}" for name, how in said]
    return json.dumps(
        {"row": row.number, "reasons": reasons, **_tree(row)}, ensure_ascii=False, default=str
    )


def _tree(row: PromptRow) -> dict[str, object]:
    return {"prompt": row.for_model(), **row.columns}


def _write(path: Path, lines: Sequence[str]) -> None:
    replace_file(path, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
