"""The file in which a site keeps what it has spent: append-only, chained, locked and durable.

Adversary: the server, which may begin new runs, repeat rounds and crash nodes at will, and must
never get a release that the file does not count; and accidents on the site's own disk. The owner of
the machine is trusted with the file: whoever deletes it begins a new account.

Each line is a JSON object with the hash of the line before it, so that no line can be changed,
removed or put in between unnoticed, but for removing the newest. A line is on disk (fsync) before
training begins, and so before anything leaves. A crash can tear the last line only; whatever it
was, nothing had been released for it. It is counted all the same, as the dearest release that the
file and the request in hand know, and stays in the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedgrpo.ground.codec import Folded, fold, unfold
from fedgrpo.ground.errors import PolicyError, ProtocolError
from fedgrpo.ground.files import sync_folder
from fedgrpo.site.refusals import Refusal, refused

START = "0" * 64
"""What the first line has for the hash of the line before it."""


@dataclass(frozen=True)
class Entry:
    """One release, counted once.

    Attributes
    ----------
    at:
        Local time, ISO 8601.
    run, round:
        Where it was asked for. They identify nothing: a server may use any numbers.
    plan:
        SHA-256 (hex) of everything that decides the release. The same plan again is the same
        release, and not counted again.
    unit:
        ``prompt``, ``client``, or ``none`` for a release without noise.
    noise_multiplier:
        Noise over sensitivity that the strongest adversary faces; 0 for unit ``none``.
    sample_rate:
        Largest probability with which a unit was in the release.
    torn:
        SHA-256 (hex) of a torn line that this entry stands for; else empty.
    secret:
        Fingerprint (32 hex digits) of the node's secret, from which all randomness of the release
        follows: the same plan under another secret is another release. Empty in lines of versions
        that did not write it.
    """

    at: str
    run: int
    round: int
    plan: str
    unit: str
    noise_multiplier: float
    sample_rate: float
    torn: str = ""
    secret: str = ""

    def is_release_of(self, other: Entry) -> bool:
        """Whether both are one and the same release. A torn line may have been of any plan."""
        return (self.plan, self.secret, self.torn) == (other.plan, other.secret, "")


@dataclass(frozen=True)
class History:
    """What a spending file holds."""

    entries: tuple[Entry, ...] = ()
    """Every release, oldest first."""
    torn: bytes = b""
    """Bytes of a torn last line that no entry stands for yet."""
    head: str = START
    """Hash of the last line."""

    @property
    def counted(self) -> tuple[Entry, ...]:
        """Every release as it counts: a torn last line as its stand-in."""
        return (*self.entries, stand_in(self)) if self.torn else self.entries


Admit = Callable[[Sequence[Entry]], None]
"""Raises PolicyError unless these releases together are within the limits."""


class SpendingFile:
    """A site's account on disk.

    Parameters
    ----------
    path:
        Made with mode 0600 when the first release is charged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> History:
        """Read everything that was spent; raises PolicyError if the file cannot be read, or a line
        was changed.
        """
        if not self.path.exists():
            return History()
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
            return parse(_content(descriptor))

    def charge(self, entry: Entry, admit: Admit) -> bool:
        """Count a release before it is made, and have it on disk when this returns.

        Check and append happen under one exclusive lock, so two processes never both spend the
        last of a budget.

        Parameters
        ----------
        admit:
            Called with all releases, this one included, and raises if they are too much.

        Returns
        -------
        bool
            False if the same plan was counted before, under the same secret.

        Raises
        ------
        PolicyError
            From ``admit``, or if the file cannot be read or written.
        """
        with self._locked(os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as descriptor:
            content = _content(descriptor)
            history = parse(content)
            new = _repaired(history, entry)
            if any(made.is_release_of(entry) for made in history.entries):
                return False
            admit([*history.entries, *new])
            open_line = b"\n" if content and not content.endswith(b"\n") else b""
            _append(descriptor, open_line + _lines(new, history.head))
            if not content:
                sync_folder(self.path.parent)
        return True

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, lock)
                if flags & os.O_CREAT:
                    os.fchmod(descriptor, 0o600)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _broken(f"{self.path}: {type(error).__name__}") from None


def parse(content: bytes) -> History:
    """Read the bytes of a spending file; raises PolicyError if a line is not what it was when it
    was written.
    """
    entries: list[Entry] = []
    head, torn = START, b""
    for number, line in enumerate(content.split(b"\n"), start=1):
        parsed = _read_line(line, head)
        if parsed is None:
            # A crash left it, if it is the last or the entry that follows vouches for it.
            torn = torn + b"\n" + line if torn else line
            continue
        entry, own = parsed
        if not own or entry.torn != _digest(torn):
            raise _broken(f"line {number} of the spending file, or one before it, was changed")
        entries.append(entry)
        head, torn = own, b""
    return History(tuple(entries), torn.rstrip(b"\n"), head)


def _repaired(history: History, entry: Entry) -> list[Entry]:
    """The new entry, after one for a torn line if there is any."""
    if not history.torn:
        return [entry]
    return [stand_in(history, entry), entry]


def stand_in(history: History, asked: Entry | None = None) -> Entry:
    """Count a torn line as the dearest release that is known, for every unit.

    Parameters
    ----------
    history:
        With a torn line.
    asked:
        The request in hand, if there is any.
    """
    known = [e for e in (*history.entries, asked) if e and e.noise_multiplier > 0]
    return Entry(
        at=asked.at if asked else "",
        run=0,
        round=0,
        plan="",
        unit="none",
        noise_multiplier=min((e.noise_multiplier for e in known), default=0.0),
        sample_rate=max((e.sample_rate for e in known), default=1.0),
        torn=_digest(history.torn),
    )


def _lines(entries: Sequence[Entry], head: str) -> bytes:
    written = b""
    for entry in entries:
        values = {name: v for name, v in fold(entry).scalars.items() if name != "secret" or v}
        following = _hash(head, values)
        line = json.dumps({"previous": head, **values, "hash": following})
        written, head = written + line.encode() + b"\n", following
    return written


def _read_line(line: bytes, head: str) -> tuple[Entry, str] | None:
    """Read an entry and the hash of its line, which is empty unless the line is as it was written
    behind ``head``; None unless the line is whole. Older versions wrote no secret.
    """
    try:
        values = json.loads(line)
        previous, own = values.pop("previous"), values.pop("hash")
        entry = unfold(Entry, Folded({"secret": "", **values}))
    except (ValueError, TypeError, KeyError, AttributeError, ProtocolError):
        return None
    return entry, own if (previous, own) == (head, _hash(head, values)) else ""


def _digest(torn: bytes) -> str:
    return hashlib.sha256(torn).hexdigest() if torn else ""


def _hash(head: str, values: dict[str, Any]) -> str:
    """Hash all that a line says but its own hash."""
    return hashlib.sha256(json.dumps([head, values], sort_keys=True).encode()).hexdigest()


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))


def _append(descriptor: int, content: bytes) -> None:
    if os.write(descriptor, content) != len(content):
        raise OSError("short write")
    os.fsync(descriptor)


def _broken(problem: str) -> PolicyError:
    return refused(Refusal.SPENT_FILE, problem)
