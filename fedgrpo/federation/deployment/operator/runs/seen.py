"""The run that was asked for last, as its directory has it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedgrpo.federation.deployment.operator.runs.present import LastDrop, SeenSite
from fedgrpo.federation.deployment.operator.wish import Submitted, Wish
from fedgrpo.ground.errors import LedgerError
from fedgrpo.ground.records import Guarantee
from fedgrpo.ledger import FILE as LEDGER
from fedgrpo.ledger import RoundEntry
from fedgrpo.ledger.entries import from_tree
from fedgrpo.report.reader import read_dropped, read_rows, read_status
from fedgrpo.report.records import DroppedNode, RoundRow
from fedgrpo.report.wording import PHASE_WORDS, time_left

LATEST = 20
"""Rounds that are shown, the newest."""
_TAIL = 1 << 20
"""Bytes of a ledger's end that are read: the last entry is there, and the one before it."""
_REFUSED = re.compile(r"refused, ([a-z-]+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class SeenRound:
    """A finished round.

    Attributes
    ----------
    reward, held_out:
        Mean in training, and on held-out prompts, sampled; None where it was not measured.
    seconds:
        By phase.
    reason:
        Why the model is as it was before; empty where the round counted.
    """

    round: int
    reward: float | None
    held_out: float | None
    finished: int
    dropped: int
    epsilon: float | None
    seconds: Mapping[str, float]
    reason: str

    @classmethod
    def of(cls, row: RoundRow) -> SeenRound:
        """What is shown of a row."""
        return cls(
            round=row.round,
            reward=row.metrics.get("reward"),
            held_out=row.sampled,
            finished=row.finished,
            dropped=row.dropped,
            epsilon=row.epsilon,
            seconds=row.seconds,
            reason=row.reason,
        )


@dataclass(frozen=True)
class SeenRun:
    """The run that was asked for last.

    Attributes
    ----------
    name, directory:
        Of the run.
    state:
        ``submitted``, ``stopped``, or as in ``status.json``.
    round, rounds:
        Under way, and in all.
    phase:
        In words.
    since:
        Unix time, in seconds, at which the phase began.
    left_s:
        Seconds to the end, as far as one can say.
    limit:
        Largest epsilon that the settings allow.
    problem, cure:
        Why it does not go on; empty if it does.
    skipped:
        Rounds that left the model as it was.
    refusals:
        By code, how often nodes refused.
    latest:
        Rounds, the newest last.
    epsilon:
        Spent so far, against each adversary; only where it was asked for.
    """

    name: str
    directory: str
    state: str
    round: int
    rounds: int
    phase: str
    since: float
    left_s: float | None
    limit: float
    problem: str
    cure: str
    skipped: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    latest: tuple[SeenRound, ...] = ()
    epsilon: tuple[Guarantee, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it is under way."""
        return self.state in ("running", "waiting")


def seen_run(folder: Path) -> SeenRun | None:
    """The run that was asked for last; None if none was."""
    wish = Wish.read(folder)
    if wish is None:
        return None
    directory, submitted = Path(wish.directory), Submitted.read(folder)
    rows, status, rounds = read_rows(directory), read_status(directory), int(wish.config["rounds"])
    fresh = status is not None and (status.time >= wish.since or status.state == "finished")
    problem, cure = (status.problem, status.cure) if status and fresh else ("", "")
    if submitted and submitted.wish == wish.number and submitted.problem:
        problem, cure = submitted.problem, "see the server's log"
    state = status.state if status and fresh else "submitted"
    charged = max((row.round for row in rows), default=0)
    return SeenRun(
        name=wish.run,
        directory=wish.directory,
        state="stopped" if wish.stopped and state != "finished" else state,
        round=status.round if status and fresh else charged,
        rounds=rounds,
        phase=PHASE_WORDS.get(status.phase, status.phase) if status and fresh else "",
        since=status.since if status and fresh else wish.since,
        left_s=time_left(rows, rounds) if rows and state != "finished" else None,
        limit=float(wish.config["privacy.max_epsilon"]),
        problem=problem,
        cure=cure,
        skipped=sum(not row.applied for row in rows if row.round),
        refusals=_refusals(read_dropped(directory)),
        latest=tuple(map(SeenRound.of, rows[-LATEST:])),
    )


def with_epsilon(run: SeenRun | None) -> SeenRun | None:
    """The same with what is spent against each adversary, as the run's ledger has it."""
    return replace(run, epsilon=_spent(Path(run.directory) / LEDGER)) if run else None


def _spent(ledger: Path) -> tuple[Guarantee, ...]:
    """What the last round's entry says. Nothing is computed: that would take seconds, and torch."""
    unread = (OSError, ValueError, KeyError, TypeError, LedgerError)
    with contextlib.suppress(*unread), ledger.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        for line in reversed(file.read().split(b"\n")[:-1]):
            entry = from_tree(json.loads(line)["entry"])
            if isinstance(entry, RoundEntry):
                return entry.epsilon
    return ()


# Nodes that rounds were closed without -----------------------------------------------------------


def names(sites: Iterable[SeenSite]) -> dict[str, str]:
    """Names of sites by Flower's ids."""
    return {str(site.node): site.name for site in sites if site.node}


def by_name(dropped: DroppedNode, names: Mapping[str, str]) -> str:
    """Say which site a round was closed without, and why."""
    name = names.get(dropped.node, f"node {dropped.node}, which takes part no more,")
    return f"{name} was dropped in round {dropped.round}: {dropped.reason}"


def last_drops(directory: Path) -> dict[str, LastDrop]:
    """Why each node was dropped last, by Flower's ids, the latest last."""
    dropped, found = read_dropped(directory), dict[str, LastDrop]()
    rounds = {(each.node, each.reason): set[int]() for each in dropped}
    for each in dropped:
        rounds[each.node, each.reason].add(each.round)
        found.pop(each.node, None)
        code, cure = _refusal(each.reason)
        times = len(rounds[each.node, each.reason])
        reason = f"refused, {code}" if code else each.reason
        found[each.node] = LastDrop(each.round, reason, cure, code, times, each.time)
    return found


def _refusal(reason: str) -> tuple[str, str]:
    """Code and cure of a refusal; two empty texts of anything else."""
    found = _REFUSED.fullmatch(reason)
    return (found[1], found[2]) if found else ("", "")


def _refusals(dropped: Sequence[DroppedNode]) -> Mapping[str, int]:
    codes = (_refusal(each.reason)[0] for each in dropped)
    return dict(Counter(code for code in codes if code))
