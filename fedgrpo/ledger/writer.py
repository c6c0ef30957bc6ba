"""Appending to a run's ledger so that a kill at any instant loses nothing and repeats nothing."""

from __future__ import annotations

from pathlib import Path

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ground.files import append_line
from fedgrpo.ledger.checkpoints import Checkpoint, Cosignature, public_key
from fedgrpo.ledger.cosignatures import add_cosignature
from fedgrpo.ledger.entries import End, Entry
from fedgrpo.ledger.replay import Replay, replay

FILE = "ledger.jsonl"
"""Name of the ledger in the run directory."""


class Ledger:
    """The one writer of a ledger.

    In two steps, because a file cannot be appended to atomically: :meth:`prepare` makes the line,
    which the caller keeps where it writes atomically; :meth:`commit` appends it, and may be called
    again after a kill. Ed25519 signs deterministically (RFC 8032), so that the line of a repeated
    round is the same too.

    Parameters
    ----------
    path:
        Need not exist.
    seed:
        The server's secret (32 bytes).
    """

    def __init__(self, path: Path, seed: bytes) -> None:
        self._path, self._seed = path, seed
        self._read = Replay()

    @property
    def public_key(self) -> str:
        """The server's Ed25519 key (hex)."""
        return public_key(self._seed)

    @property
    def size(self) -> int:
        """Entries so far."""
        return len(self._read.entries)

    @property
    def checkpoint(self) -> Checkpoint:
        """The last one; there must be an entry."""
        return self._read.checkpoint

    @property
    def told(self) -> str:
        """``ROOT:SIZE`` of the last checkpoint, by which a reader knows the ledger again."""
        return f"{self.checkpoint.root}:{self.size}"

    @property
    def members(self) -> set[str]:
        """Signing keys (hex) of members that computed any of the rounds."""
        return self._read.members

    @property
    def ended(self) -> bool:
        """Whether the last entry is the end of the run."""
        return bool(self._read.entries) and isinstance(self._read.entries[-1], End)

    def require_new(self) -> None:
        """Refuse a ledger that has entries already; raises LedgerError if it has."""
        if self._path.exists() and self._path.stat().st_size:
            raise LedgerError(
                f"{self._path} is the ledger of a run whose checkpoint is gone",
                cure="restore the checkpoint, or begin a new run in an empty directory",
            )

    def lines(self) -> list[bytes]:
        """Read the line of each entry, with its line break."""
        return self._path.read_bytes().splitlines(keepends=True)

    def keep(self, cosignature: Cosignature) -> None:
        """Keep a member's signature beside the ledger."""
        add_cosignature(self._path.parent, cosignature)

    def prepare(self, entry: Entry) -> str:
        """Sign an entry as the next one and return its line, which is not yet in the ledger."""
        return self._read.signed_line(entry, self._seed).decode()

    def commit(self, line: str) -> None:
        """Append a line that :meth:`prepare` made. It is on disk when this returns."""
        after = self._read.length
        self._read.take(line.encode())
        append_line(self._path, line.encode(), after=after)

    def recover(self, size: int, line: str) -> None:
        """Take up a ledger after a kill; raises LedgerError if the ledger is anything else than so
        many entries and what there is of that line.

        Parameters
        ----------
        size:
            Entries before ``line``.
        line:
            The last that was prepared: appended already, in part, or not at all.
        """
        content = self._path.read_bytes() if self._path.exists() else b""
        lines = content.splitlines(keepends=True)
        before, rest = b"".join(lines[:size]), b"".join(lines[size:])
        if len(lines) < size or not line.encode().startswith(rest):
            raise LedgerError(
                f"{self._path} is not the ledger that the checkpoint belongs to",
                cure="restore it, or begin a new run in an empty directory",
            )
        self._read = replay(before, str(self._path)) if before else Replay()
        if rest == line.encode():
            self._read.take(rest)
        else:
            self.commit(line)
