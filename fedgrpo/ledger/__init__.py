"""A record of the run that anyone can check: hashed (RFC 6962), signed (Ed25519), replayed offline.

Knows neither Flower nor torch.
"""

from fedgrpo.ledger.checkpoints import Checkpoint, Cosignature, cosign
from fedgrpo.ledger.commitments import commitment
from fedgrpo.ledger.cosignatures import add_cosignature
from fedgrpo.ledger.entries import End, Entry, Head, RoundEntry
from fedgrpo.ledger.replay import Replay, replay
from fedgrpo.ledger.verify import KnownRoot, Verdict, hash_file, verify
from fedgrpo.ledger.witness import Expected, Signed, Witness
from fedgrpo.ledger.writer import FILE, Ledger

__all__ = [
    "FILE",
    "Checkpoint",
    "Cosignature",
    "End",
    "Entry",
    "Expected",
    "Head",
    "KnownRoot",
    "Ledger",
    "Replay",
    "RoundEntry",
    "Signed",
    "Verdict",
    "Witness",
    "add_cosignature",
    "commitment",
    "cosign",
    "hash_file",
    "replay",
    "verify",
]
