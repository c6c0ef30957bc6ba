"""Small runs with a ledger, written without any federation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedgrpo.ledger import FILE, End, Head, Ledger, RoundEntry, hash_file
from fedgrpo.ledger.checkpoints import public_key
from fedgrpo.privacy.accounting.guarantees import guarantees
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of

SEED = bytes(range(32))
SETTINGS = Settings.from_mapping(
    {
        "rounds": 3,
        "privacy": {"unit": "client", "noise_multiplier": 20.0, "adaptive": True, "quantile": 0.5},
    }
)
MEMBER_SEEDS = tuple(bytes([number]) * 32 for number in range(1, 5))
MEMBERS = tuple(public_key(seed) for seed in MEMBER_SEEDS)
COMMITTEE = Settings.from_mapping(
    {
        "rounds": 3,
        "privacy": {"unit": "client", "noise_multiplier": 20.0, "noise": "server"},
        "aggregation": {"protocol": "committee", "committee": [k + "0" * 64 for k in MEMBERS]},
        "robust": {"trim": 1},
    }
)
"""Of a run over a committee that the settings name."""
HASHES = tuple(f"{number:064x}" for number in range(10))
WEIGHTS = "adapter/weights.bin"


def head(settings: Settings = SETTINGS) -> Head:
    return Head(
        run="ab" * 16,
        public_key=Ledger(Path("unused"), SEED).public_key,
        settings=settings.model_dump(mode="json", exclude={"run"}),
        fingerprint=settings.fingerprint(),
        model=HASHES[8],
        basis=HASHES[9],
        adapter=HASHES[0],
        version="1",
        code=HASHES[7],
    )


def round_entry(round: int, settings: Settings = SETTINGS, aborted: str = "") -> RoundEntry:
    """Rounds go from adapter ``round - 1`` to ``round``."""
    return RoundEntry(
        round=round,
        model=HASHES[8],
        basis=HASHES[9],
        settings=settings.fingerprint(),
        adapter=HASHES[round - 1],
        result=HASHES[round],
        cohort=12,
        finished=0 if aborted else 12,
        groups=4,
        rule=settings.robust.rule,
        trim=settings.robust.trim,
        clipping_norm=1.0 / round if settings.privacy.adaptive else 1.0,
        noise=protocol_of(settings).noise_place(settings),
        noise_multiplier=settings.privacy.noise_multiplier,
        epsilon=guarantees(settings, round),
        aborted=aborted,
        protocol=settings.aggregation.protocol,
        version="1",
        commitments=HASHES[:2],
        committee=MEMBERS if settings is COMMITTEE and not aborted else (),
    )


def write_run(folder: Path, *entries: Head | RoundEntry | End) -> Path:
    """Write a ledger with these entries, and weights where they end; without any, a small run that
    came to its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not entries or isinstance(entries[-1], End):
        weights = folder / WEIGHTS
        weights.parent.mkdir()
        weights.write_bytes(b"\x00\x01 final weights")
    made = entries or (head(), round_entry(1), round_entry(2), last(folder))
    ledger = Ledger(folder / FILE, SEED)
    for entry in made:
        ledger.commit(ledger.prepare(entry))
    return folder


def last(folder: Path, rounds: int = 2) -> End:
    return End(rounds=rounds, adapter=HASHES[rounds], files={WEIGHTS: hash_file(folder / WEIGHTS)})


def changed(entry: RoundEntry, **fields: object) -> RoundEntry:
    return replace(entry, **fields)  # type: ignore[arg-type]
