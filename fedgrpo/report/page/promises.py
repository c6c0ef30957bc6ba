"""What a run guarantees and what it does not, in words for people who read no code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedgrpo.ground.records import Guarantee
from fedgrpo.report.page.ledgers import CheckedLedger
from fedgrpo.report.reader import Run
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.base import trimmed_by

UNITS = {
    "prompt": "one prompt with all its copies at a site and all its answers",
    "client": "one client with everything it contributed",
}


@dataclass(frozen=True)
class Promises:
    """Sentences: what holds, and what nobody should rely upon."""

    kept: Sequence[str]
    open: Sequence[str]


def promises(run: Run, ledger: CheckedLedger | None) -> Promises:
    """Put together what a run's settings, its summary and its ledger allow to be said."""
    if run.rows[-1].alone:
        return Promises([], [*_ALONE])
    held = run.summary.privacy if run.summary else list(ledger.spent if ledger else ())
    settings = run.settings
    kept, left = [_hidden(one, settings) for one in held], []
    if held:
        left.append(_IN_COMMON)
    else:
        left.append(
            "Single prompts are not hidden: the run has no differential privacy. What the model "
            "learnt by heart from one prompt can be found in it."
        )
    if settings is not None:
        kept += _shown(settings, private=bool(held))
        (kept if _withstands(settings) else left).append(_robust(run, settings))
        left += _trust(settings)
    if ledger is not None:
        (kept if ledger.fits else left).append(ledger.words)
    return Promises(kept, [*left, *_OPEN])


_ALONE = (
    "Nothing is hidden: the adapter is as private as the prompts that it was trained on. Give it "
    "to nobody to whom you would not give the prompts.",
    "There is no signed record of this run. Its figures are what this machine wrote down.",
)
_OPEN = (
    "The held-out figures and answers on this page are of the server's own prompts, which nothing "
    "hides: if they are private, so is this page.",
    "That the model answers rightly, safely or without bias. It was rewarded for what the reward "
    "functions measure, and for nothing else.",
)
_IN_COMMON = (
    "What many prompts have in common is learnt on purpose: only what is in single ones is hidden."
)


def _hidden(held: Guarantee, settings: Settings | None) -> str:
    unit = UNITS.get(held.unit, f"one {held.unit}")
    if settings is not None and settings.data.unit and held.unit == "prompt":
        unit = f"all rows of one {settings.data.unit}"
    factor = f"{math.exp(held.epsilon):.3g}" if held.epsilon < 20 else "more than a hundred million"
    return (
        f"Against {held.adversary}: it is hidden whether {unit} took part. Whatever is observed is "
        f"at most {factor} times as likely with it as without, but for a chance of {held.delta:g} "
        f"(epsilon {held.epsilon:.2f}, delta {held.delta:g})."
    )


def _shown(settings: Settings, *, private: bool) -> Iterator[str]:
    protocol = protocol_of(settings)
    place = {"client": "by each client, before anything leaves it", "server": "by the server"}
    yield f"The server is shown {protocol.shows}."
    if private:
        noiser = place.get(protocol.noise_place(settings)) or (
            f"by {protocol.noiser.words}" if protocol.noiser else ""
        )
        yield f"Noise is added {noiser}."


def _withstands(settings: Settings) -> bool:
    return trimmed_by(settings) > 0


def _robust(run: Run, settings: Settings) -> str:
    rule, trim = settings.robust.rule.replace("_", " "), settings.robust.trim
    if settings.robust.rule == "norm_checked":
        return (
            "Forgers are bounded, not kept out: what a client sends counts for its share of the "
            "clients and of a public length at most, but all forgers can pull one way."
        )
    if not _withstands(settings):
        how = f"robust rule {rule}" + ("" if trim else ", trim 0")
        return f"A single client that sends nonsense can steer the model: {how}."
    counted = [row for row in run.rows if row.buckets]
    groups = max((row.buckets for row in counted), default=0)
    single = all(row.buckets == row.finished for row in counted)
    forged = "clients may send forged updates" if single else "group means may be forged"
    return (
        f"Up to {trim} of {groups} {forged}: the {rule} takes what the others agree on. A forger "
        "can still pull within what honest clients might have sent."
    )


def _trust(settings: Settings) -> Iterator[str]:
    protocol = protocol_of(settings)
    if settings.privacy.unit != "none" and protocol.noise_place(settings) == "server":
        yield (
            f"The server is trusted: it sees {protocol.sees} without noise, and draws the noise. "
            "The epsilon holds against readers of the model, not against the server."
        )
    if protocol.members:
        yield "Any two members of the committee that conspire see every contribution."
    if protocol.trusted_server:
        yield "The server is shown the contribution of each client by itself."
    elif not protocol.members:
        yield (
            "A server that breaks the protocol can see single contributions. What noise each "
            "client adds is still on them."
        )
    yield "Who takes part, and when, is known to the server."
