"""Checking a run's record offline: what ``fedgrpo ledger verify`` does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.errors import LedgerError, PrivacyError, RunError, SettingsError
from fedgrpo.ground.files import file_hash
from fedgrpo.ground.parts.names import part_name
from fedgrpo.ground.records import Guarantee
from fedgrpo.ground.run_files import ADAPTER, SUMMARY
from fedgrpo.ledger.checkpoints import Checkpoint
from fedgrpo.ledger.cosignatures import cosigned
from fedgrpo.ledger.entries import End, Head, RoundEntry
from fedgrpo.ledger.replay import CURE, Replay, replay
from fedgrpo.ledger.writer import FILE
from fedgrpo.privacy.accounting.guarantees import guarantees
from fedgrpo.privacy.adaptive import within_range
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of

_TOLERANCE = 1e-6
"""Relative difference of epsilon between machines: another libm, another version of the accountant.
"""


@dataclass(frozen=True)
class KnownRoot:
    """What a reader knows of a ledger: its root when it had so many entries.

    Attributes
    ----------
    root:
        64 hexadecimal digits.
    size:
        Entries, the head included.
    """

    root: str
    size: int

    @classmethod
    def parse(cls, text: str) -> KnownRoot:
        """Read ``ROOT:SIZE``, as ``fedgrpo ledger verify`` prints it.

        Raises
        ------
        SettingsError
            If it is none.
        """
        if not (found := _KNOWN.fullmatch(text.strip().lower())):
            raise SettingsError(
                f"{text!r} is no ROOT:SIZE",
                cure="give 64 hexadecimal digits, a colon and the number of entries, as 'fedgrpo "
                "ledger verify' prints them",
            )
        return cls(found[1], int(found[2]))


_KNOWN = re.compile(r"([0-9a-f]{64}):([1-9][0-9]{0,9})", re.ASCII)


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


def verify(run_dir: Path, *, key: str | None = None, expected: KnownRoot | None = None) -> Verdict:
    """Check a run's ledger against itself, the accountant and the final adapter.

    Adversary: see :mod:`fedgrpo.ledger.checkpoints`. The key in the head is the run's own, so
    whoever can replace the whole directory can make another ledger that holds: name the key that
    you know, a root that you were told, or ask for members' co-signatures. Entries cut off at the
    end leave a ledger that holds, and that has not ended: :attr:`Verdict.ended`.

    Parameters
    ----------
    run_dir:
        Holds the ledger and, if the run has ended, the adapter.
    key:
        The server's public key (hex), if the reader knows it.
    expected:
        What the reader was told of this ledger before, or by somebody else.

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
    if expected is not None:
        _check_known(read, expected)
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


def _check_known(read: Replay, known: KnownRoot) -> None:
    """Refuse a ledger that is another one than the reader was told of, or ends before it."""
    count = len(read.checkpoints)
    if known.size > count:
        raise LedgerError(
            f"{FILE} has {count} entries, and had {known.size} when its root was told", cure=CURE
        )
    if (found := read.checkpoints[known.size - 1].root) != known.root:
        raise _misfit(known.size, f"its root is {found}, and {known.root} was told")


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
    if entry.round > settings.rounds:
        yield f"round {entry.round} is beyond rounds = {settings.rounds} of the settings"
    if not within_range(entry.clipping_norm, settings.privacy.clipping_norm):
        yield f"clipping norm {entry.clipping_norm} is further than one adapts"
    for name, expected in _expected(settings, head).items():
        if (found := getattr(entry, name)) != expected:
            yield f"{name} is {found!r}, the settings and the head say {expected!r}"
    yield from protocol_of(settings).entry_faults(entry, settings)
    spent = sum(one.released for one in [*done, entry])
    if not _same_guarantees(entry.epsilon, _computed(settings, spent)):
        yield "its epsilon is not what the accountant computes"


def _expected(settings: Settings, head: Head) -> dict[str, object]:
    """What must be the same in every round."""
    privacy, private = settings.privacy, settings.privacy.unit != "none"
    fixed = {} if privacy.adaptive else {"clipping_norm": privacy.clipping_norm}
    if part_name(settings.robust.rule) != "norm_checked":
        fixed["radius"] = 0.0
    return fixed | {
        "model": head.model,
        "basis": head.basis,
        "settings": settings.fingerprint(),
        "rule": settings.robust.rule,
        "trim": settings.robust.trim,
        "noise": protocol_of(settings).noise_place(settings),
        "noise_multiplier": privacy.noise_multiplier if private else 0.0,
        "protocol": settings.aggregation.protocol,
        "version": head.version,
    }


def _computed(settings: Settings, spent: int) -> tuple[Guarantee, ...] | None:
    """What the accountant says; None if it cannot account for such settings."""
    try:
        return guarantees(settings, spent)
    except PrivacyError:
        return None


def _same_guarantees(found: tuple[Guarantee, ...], computed: tuple[Guarantee, ...] | None) -> bool:
    return (
        computed is not None
        and len(found) == len(computed)
        and all(
            (a.unit, a.adversary, a.delta) == (b.unit, b.adversary, b.delta)
            and math.isclose(a.epsilon, b.epsilon, rel_tol=_TOLERANCE)
            for a, b in zip(found, computed, strict=True)
        )
    )


def _check_files(run_dir: Path, last: object, number: int) -> None:
    """Compare the final adapter with the end of the ledger."""
    if not isinstance(last, End):
        for name in (SUMMARY, ADAPTER):
            if (run_dir / name).exists():
                raise _misfit(
                    number, f"it is the last one, and beside it is {name}: no end names it"
                )
        return
    for name, stated in last.files.items():
        path = run_dir / name
        if ".." in path.parts or not path.is_relative_to(run_dir / ADAPTER):
            raise _misfit(number, f"it names {name}, which is not in the folder {ADAPTER}")
        if hash_file(path) != stated:
            raise LedgerError(
                f"{name} is not the file that line {number} of {FILE} names", cure=CURE
            )
    if extra := sorted(_files(run_dir / ADAPTER) - {run_dir / name for name in last.files}):
        name = extra[0].relative_to(run_dir).as_posix()
        raise LedgerError(f"{name} is no file that line {number} of {FILE} names", cure=CURE)


def _files(folder: Path) -> set[Path]:
    """Everything in a folder, however deep, that is not a folder itself."""
    return {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; empty if there is none."""
    return file_hash(path) if path.is_file() else ""


def _misfit(number: int, fault: str) -> LedgerError:
    return LedgerError(f"{FILE}, line {number}: {fault}", cure=CURE)
