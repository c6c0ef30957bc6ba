"""Checking a run's record offline: what ``fedgrpo ledger verify`` does."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.errors import LedgerError, RunError, SettingsError
from fedgrpo.ledger.checkpoints import Checkpoint
from fedgrpo.ledger.cosignatures import cosigned
from fedgrpo.ledger.entries import End, Head, RoundEntry
from fedgrpo.ledger.replay import CURE, replay
from fedgrpo.ledger.writer import FILE
from fedgrpo.privacy.accounting import guarantees
from fedgrpo.report.reader import SUMMARY
from fedgrpo.report.records import Guarantee
from fedgrpo.settings import Settings
from fedgrpo.settings_checks import MEMBERS, noise_by

_TOLERANCE = 1e-6
"""Relative difference of epsilon between machines: another libm, another version of the accountant.
"""


@dataclass(frozen=True)
class Verdict:
    """What a ledger that holds says.

    Attributes
    ----------
    rounds, aborted:
        Entries of rounds, and how many of them changed nothing.
    ended:
        Whether the run came to its end, so that the final adapter's files were checked too.
    epsilon:
        Spent, computed again.
    checkpoint:
        The last signed one.
    public_key:
        The server's (hex): compare it with the one you know.
    cosigned:
        Entries up to which each member vouches.
    """

    rounds: int
    aborted: int
    ended: bool
    epsilon: tuple[Guarantee, ...]
    checkpoint: Checkpoint
    public_key: str
    cosigned: dict[str, int]


def verify(run_dir: Path, *, key: str | None = None) -> Verdict:
    """Check a run's ledger against itself, the accountant and the final adapter.

    Adversary: see :mod:`fedgrpo.ledger.checkpoints`. The key in the head is the run's own, so
    whoever can replace the whole directory can make another ledger that holds: name the key that
    you know, or ask for members' co-signatures.

    Parameters
    ----------
    run_dir:
        Holds the ledger and, if the run has ended, the adapter.
    key:
        The server's public key (hex), if the reader knows it.

    Raises
    ------
    RunError
        If there is no ledger.
    LedgerError
        Points at the first entry, or the file, that does not fit.
    """
    path = run_dir / FILE
    if not path.is_file():
        raise RunError(f"{run_dir} holds no {FILE}", cure="check the path")
    read = replay(path.read_bytes(), FILE)
    if key is not None and read.head.public_key != key.strip().lower():
        raise _misfit(1, f"its key is {read.head.public_key}, not {key}")
    settings = _settings(read.head)
    rounds: list[RoundEntry] = []
    for number, entry in enumerate(read.entries[1:], start=2):
        for fault in _faults(entry, settings, read.head, rounds, ended=number < len(read.entries)):
            raise _misfit(number, fault)
        if isinstance(entry, RoundEntry):
            rounds.append(entry)
    ended = isinstance(read.entries[-1], End)
    _check_files(run_dir, read.entries[-1], len(read.entries))
    return Verdict(
        rounds=len(rounds),
        aborted=sum(bool(entry.aborted) for entry in rounds),
        ended=ended,
        epsilon=rounds[-1].epsilon if rounds else (),
        checkpoint=read.checkpoints[-1],
        public_key=read.head.public_key,
        cosigned=cosigned(run_dir, read),
    )


def _settings(head: Head) -> Settings:
    try:
        settings = Settings.from_mapping(head.settings)
    except SettingsError as error:
        raise _misfit(1, f"this version cannot read its settings: {error.problem}") from None
    if settings.fingerprint() != head.fingerprint:
        raise _misfit(1, "its fingerprint is not that of its settings")
    return settings


def _faults(
    entry: object, settings: Settings, head: Head, done: list[RoundEntry], *, ended: bool
) -> Iterator[str]:
    """What about an entry does not follow from those before it, the settings or the accountant.

    ``done`` are the rounds before it; ``ended`` says that other entries follow.
    """
    adapter = done[-1].result if done else head.adapter
    if isinstance(entry, End):
        if ended:
            yield "entries follow the end"
        if entry.rounds != len(done) or entry.adapter != adapter:
            yield "it does not end where the last round did"
    if not isinstance(entry, RoundEntry):
        return
    if entry.round != len(done) + 1:
        yield f"round {entry.round} follows round {len(done)}"
    if entry.adapter != adapter:
        yield "it does not begin with the adapter that the entry before it ended with"
    if entry.aborted and entry.result != entry.adapter:
        yield "an aborted round changed the adapter"
    for name, expected in _expected(settings, head).items():
        if (found := getattr(entry, name)) != expected:
            yield f"{name} is {found!r}, the settings and the head say {expected!r}"
    yield from _committee_faults(entry, settings)
    spent = sum(one.released for one in [*done, entry])
    if not _same_guarantees(entry.epsilon, guarantees(settings, spent)):
        yield "its epsilon is not what the accountant computes"


def _committee_faults(entry: RoundEntry, settings: Settings) -> Iterator[str]:
    """What does not fit who computed the round, and whether it counts."""
    aggregation = settings.aggregation
    committee = aggregation.protocol == "committee"
    if not entry.released and not (committee and entry.aborted):
        yield "it claims to have released nothing, which only an aborted round of a committee can"
    members = entry.committee
    if entry.aborted or not committee:
        if members:
            yield "it names members of a committee that did not compute it"
    elif len(set(members)) != len(members) or len(members) != MEMBERS:
        yield f"{len(members)} members computed it, and {MEMBERS} do"
    elif aggregation.committee and not set(members) <= signing_keys(settings):
        yield "a member that computed it is not on the committee that the settings list"


def signing_keys(settings: Settings) -> set[str]:
    """Signing keys (hex) of the committee that the settings name."""
    return {name[:64] for name in settings.aggregation.committee}


def _expected(settings: Settings, head: Head) -> dict[str, object]:
    """What must be the same in every round."""
    privacy, private = settings.privacy, settings.privacy.unit != "none"
    fixed = {} if privacy.adaptive else {"clipping_norm": privacy.clipping_norm}
    return fixed | {
        "model": head.model,
        "basis": head.basis,
        "settings": settings.fingerprint(),
        "rule": settings.robust.rule,
        "trim": settings.robust.trim,
        "noise": noise_by(settings),
        "noise_multiplier": privacy.noise_multiplier if private else 0.0,
        "protocol": settings.aggregation.protocol,
        "version": head.version,
    }


def _same_guarantees(found: tuple[Guarantee, ...], computed: tuple[Guarantee, ...]) -> bool:
    return len(found) == len(computed) and all(
        (a.unit, a.adversary, a.delta) == (b.unit, b.adversary, b.delta)
        and math.isclose(a.epsilon, b.epsilon, rel_tol=_TOLERANCE)
        for a, b in zip(found, computed, strict=True)
    )


def _check_files(run_dir: Path, last: object, number: int) -> None:
    """Compare the final adapter with the end of the ledger."""
    if not isinstance(last, End):
        if (run_dir / SUMMARY).exists():
            raise _misfit(number, "the run has finished, and the ledger does not say so")
        return
    found = {name: hash_file(run_dir / name) for name in last.files}
    for name, stated in last.files.items():
        if found[name] != stated:
            raise LedgerError(
                f"{name} is not the file that line {number} of {FILE} names", cure=CURE
            )
    folders = {(run_dir / name).parent for name in last.files}
    present = {str(f.relative_to(run_dir)) for folder in folders for f in folder.iterdir()}
    if extra := sorted(present - set(last.files)):
        raise LedgerError(f"{extra[0]} is no file that line {number} of {FILE} names", cure=CURE)


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _misfit(number: int, fault: str) -> LedgerError:
    return LedgerError(f"{FILE}, line {number}: {fault}", cure=CURE)
