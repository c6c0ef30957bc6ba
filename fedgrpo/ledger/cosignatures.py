"""Members' signatures beside a run's ledger."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ground.files import append_line
from fedgrpo.ledger.checkpoints import Cosignature
from fedgrpo.ledger.entries import canonical
from fedgrpo.ledger.replay import CURE, Replay

FILE = "cosignatures.jsonl"
"""Members' signatures in the run directory, one a line."""

_COSIGNATURE = TypeAdapter(Cosignature)


def add_cosignature(run_dir: Path, cosignature: Cosignature) -> None:
    """Keep a member's signature with the run. What a crash left of another one goes first."""
    path, line = run_dir / FILE, canonical(_COSIGNATURE.dump_python(cosignature)) + b"\n"
    content = path.read_bytes() if path.exists() else b""
    if line not in content.splitlines(keepends=True):
        append_line(path, line, after=content.rfind(b"\n") + 1)


def cosigned(run_dir: Path, read: Replay) -> dict[str, int]:
    """Return up to which size each member vouches for a ledger; raises LedgerError if a
    co-signature is of another ledger, of nobody who computed a round, or was not made by it.
    """
    path, members, reached = run_dir / FILE, read.members, dict[str, int]()
    content = path.read_bytes() if path.exists() else b""
    # What a crash left of a signature, behind the last line break, is none.
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            signed = _COSIGNATURE.validate_json(line)
        except ValidationError:
            raise LedgerError(f"{FILE}, line {number}: it is none", cure=CURE) from None
        if signed.member not in members or not signed.holds:
            raise LedgerError(f"{FILE}, line {number}: it is not a member's own", cure=CURE)
        if signed.checkpoint not in read.checkpoints:
            raise LedgerError(
                f"{FILE}, line {number}: member {signed.member[:12]} vouches for another "
                f"ledger of {signed.checkpoint.size} entries",
                cure="the server has shown two ledgers of one run: ask that member for its copy",
            )
        reached[signed.member] = max(reached.get(signed.member, 0), signed.checkpoint.size)
    return reached
