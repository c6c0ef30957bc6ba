"""What was done to a file of prompts, as a record that the site keeps, and a commitment to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fedgrpo.ground.crypto import kept_key
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.files import file_hash, replace_file
from fedgrpo.ground.records import Record, from_json

KEPT, REJECTED = "kept.jsonl", "rejected.jsonl"
"""Rows that stay, and those that go, each with its reasons."""
MANIFEST, SALT, COMMITMENT = "manifest.json", "manifest.salt", "manifest.commitment"
"""The record, 32 secret bytes, and what may be shown of both."""

LooksAt = Literal["the row", "rows of its unit", "other rows", "the row and the policy"]


@dataclass(frozen=True)
class RuleCount(Record):
    """What one rule came to."""

    rule: str
    looks_at: LooksAt
    rows: int
    """That go for it, and perhaps for others too."""


@dataclass(frozen=True)
class FileHash(Record):
    """A file as it was."""

    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """``manifest.json``. Counts of private rows: it stays at the site."""

    version: Literal[1] = 1
    fedgrpo: str
    """Version that curated."""
    rules: dict[str, Any]
    """As the rules file has them."""
    counts: list[RuleCount]
    near_reported: int
    """Near pairs of two units that both stay."""
    near_library: str
    """Name and version; empty where nothing was asked of it."""
    policy: str
    """SHA-256 (hex) of the adapter's weights by which difficulty was told, ``base`` or empty."""
    source: FileHash
    kept: FileHash
    rejected: FileHash
    unusable: int
    """Rows of the source that could not be read as prompts; they are in neither file."""
    units: int
    """Of the kept rows."""
    privacy: str
    """For whose presence an epsilon holds."""


def privacy_words(person: str, *, near: bool, drawn: bool) -> str:
    """For whose presence an epsilon of a run over the curated file holds, and why not for more.

    Parameters
    ----------
    person:
        Column that says whose a row is.
    near, drawn:
        Whether near rows were looked for, and difficulty was told by completions.
    """
    unit = f"all rows of one value of {person!r}" if person else "one text"
    why = []
    if near and not person:
        why.append(
            "No column tells persons apart, and the rule near looks at other rows: one row added "
            "to the uncurated file can take the place of k others, and move a round's sum by "
            "(k + 1) C, which is 3 C where it joins two."
        )
    if drawn:
        why.append(
            "The rule difficulty draws answers row after row: one row added changes the draws for "
            "those behind it."
        )
    also = "" if why else ", and of the uncurated one: no rule looks beyond the unit"
    return " ".join([f"Epsilon holds for {unit} of the curated file{also}.", *why])


def commitment(salt: bytes, manifest: bytes) -> str:
    """Commit to a manifest: SHA-256 (hex) of a secret salt (32 bytes) and its text.

    Adversary: whoever is shown it. It has one length, and says nothing as long as the salt is kept
    (random oracle); with both, the site can show later which manifest it was, and no other
    (collisions of SHA-256).
    """
    return hashlib.sha256(b"fedgrpo curation\n" + salt + manifest).hexdigest()


def keep_manifest(folder: Path, manifest: Manifest) -> str:
    """Write the record and the commitment to it, which is returned; the salt of a folder stays."""
    text = (json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n").encode()
    replace_file(folder / MANIFEST, text, mode=0o600)
    made = commitment(kept_key(folder / SALT), text)
    replace_file(folder / COMMITMENT, f"{made}\n".encode(), mode=0o600)
    return made


def read_manifest(folder: Path) -> Manifest:
    """Read the record of a folder; raises DataError if there is none that can be read."""
    try:
        return from_json(Manifest, (folder / MANIFEST).read_text("utf-8"))
    except Exception as error:
        raise DataError(
            f"{folder / MANIFEST} cannot be read ({type(error).__name__})",
            cure="curate the prompts: fedgrpo curate FILE --rules RULES",
        ) from None


def check_manifest(prompts: Path) -> Manifest:
    """The record beside prompts that are as they were curated.

    Raises
    ------
    DataError
        If there is none, or the prompts are others, or the commitment is of another record.
    """
    folder = prompts.parent
    manifest = read_manifest(folder)
    if not prompts.is_file() or file_hash(prompts) != manifest.kept.sha256:
        raise DataError(
            f"{prompts} is not the file that {folder / MANIFEST} is about",
            cure="curate it again, or name the kept.jsonl that was made",
        )
    made = commitment(kept_key(folder / SALT), (folder / MANIFEST).read_bytes())
    if not (folder / COMMITMENT).is_file() or (folder / COMMITMENT).read_text().strip() != made:
        raise DataError(
            f"{folder / COMMITMENT} is not of this manifest",
            cure="put the folder back as it was made, or curate again",
        )
    return manifest
