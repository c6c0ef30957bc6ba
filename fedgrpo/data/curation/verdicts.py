"""Every row under every rule: what stays, what goes and why. Pure, and in the file's order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedgrpo.data.curation.checks import faults, text_of
from fedgrpo.data.curation.near import near_pairs
from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import units_of
from fedgrpo.ground.chats import canonical, plain_text

Reasons = Mapping[int, Sequence[tuple[str, str]]]
"""By a row's position: the rules that it breaks, with a word on how."""


@dataclass(frozen=True)
class Verdicts:
    """What the rules say of rows.

    Attributes
    ----------
    reasons:
        Of those that go.
    reported:
        Pairs that are near and stay, as their rows are two persons'.
    """

    reasons: Reasons
    reported: int

    def kept(self, rows: int) -> list[int]:
        """Positions of those that stay."""
        return [place for place in range(rows) if place not in self.reasons]


def judged(
    rows: Sequence[PromptRow], rules: Rules, solved: Mapping[int, float] | None = None
) -> Verdicts:
    """Hold rows against the rules: each alone, then its unit, then the policy's figures.

    Parameters
    ----------
    rows:
        Of one file.
    rules:
        Written by the site's people.
    solved:
        Share of correct completions by position, of rows whose difficulty was asked for.
    """
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for place, row in enumerate(rows):
        if faulty := list(faults(row, rules)):
            found[place] += faulty
    groups = _groups(rows, rules, [place for place in range(len(rows)) if place not in found])
    if rules.exact:
        for group in groups:
            _exact(rows, rules, group, found)
    left = [[place for place in group if place not in found] for group in groups]
    reported = _near(rows, rules, left, found) if rules.near else 0
    for place, share in (solved or {}).items():
        if place not in found and share in (0, 1) and not _spared(rows[place], rules, share):
            found[place] += [("difficulty", "always solved" if share else "never solved")]
    return Verdicts(dict(sorted(found.items())), reported)


def _groups(rows: Sequence[PromptRow], rules: Rules, left: Sequence[int]) -> list[list[int]]:
    """Positions of each unit's rows in the file's order."""
    units = units_of([rows[place] for place in left], rules.person)
    return sorted(sorted(left[i] for i in unit.rows) for unit in units)


def _exact(
    rows: Sequence[PromptRow],
    rules: Rules,
    group: Sequence[int],
    found: dict[int, list[tuple[str, str]]],
) -> None:
    first: dict[str, int] = {}
    for place in group:
        columns = {k: v for k, v in rows[place].columns.items() if k not in rules.required}
        earlier = first.setdefault(canonical([plain_text(rows[place].prompt), columns]), place)
        if earlier != place:
            found[place] += [("exact", f"as row {rows[earlier].number}")]


def _near(
    rows: Sequence[PromptRow],
    rules: Rules,
    groups: Sequence[Sequence[int]],
    found: dict[int, list[tuple[str, str]]],
) -> int:
    """Let the first of near rows stay alone within a person, or, where the text is the unit,
    within the file; return how many pairs are of two persons.
    """
    owner = {place: number for number, group in enumerate(groups) for place in group}
    places = sorted(owner)
    pairs = near_pairs([text_of(rows[p].prompt) for p in places], rules.near, rules.shingle)
    reported = 0
    for earlier, later in ((places[i], places[j]) for i, j in pairs):
        if rules.person and owner[earlier] != owner[later]:
            reported += 1
        elif earlier not in found and later not in found:
            found[later] += [("near", f"as row {rows[earlier].number}")]
    return reported


def _spared(row: PromptRow, rules: Rules, share: float) -> bool:
    """Whether a row that was never solved stays, by a hash of its own text alone."""
    drawn = hashlib.sha256(plain_text(row.prompt).encode()).digest()[:8]
    return share == 0 and int.from_bytes(drawn) < rules.keep_unsolved * 2**64
