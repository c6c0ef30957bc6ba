"""One round's work with the four members that sit in it: toss keys, compute, pass messages on.

Adversary: one malicious member, which can end the round. What counts as released is decided so that
it cannot have a result that nobody is charged for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import RecordDict

from fedgrpo.federation.protocols.committee.convening.messages import (
    ABANDON,
    AGGREGATE,
    COMMITTEE,
    GO_ON,
    NOBODY,
    TOSS,
    Progress,
    Work,
)
from fedgrpo.federation.protocols.committee.convening.plan import is_direct, seating_of
from fedgrpo.federation.protocols.committee.convening.roll import CommitteeError
from fedgrpo.federation.protocols.committee.convening.seats import DealingKey, Seat
from fedgrpo.federation.wire.codec import check_size, decode, encode
from fedgrpo.federation.wire.link import Link
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings


@dataclass(frozen=True)
class Ended:
    """How an attempt ended without a result, by member."""

    failures: Mapping[int, str]
    """Why members did not answer, or refused."""
    silent: frozenset[int]
    """Those among them that did not answer."""
    reports: Mapping[int, Progress]
    """Of those that lost another one on a direct link, or gave up."""
    finished: Mapping[int, Progress]

    @property
    def lost(self) -> frozenset[int]:
        """Members that fell silent, or that another one lost."""
        return self.silent | {report.lost for report in self.reports.values()} - {NOBODY}

    @property
    def gave_up(self) -> frozenset[int]:
        """Members that answered that they ended the attempt."""
        refused = frozenset(self.failures) - self.silent
        return refused | {m for m, report in self.reports.items() if report.gave_up}

    @property
    def to_blame(self) -> frozenset[int]:
        """Members without whom the next round may do better.

        Of two, one of which says by itself that it lost the other, while that one answers, one
        lies.
        """
        told = Counter(report.lost for report in self.reports.values())
        alone = {
            m
            for m, report in self.reports.items()
            if told[report.lost] == 1 and report.lost not in self.silent | {NOBODY}
        }
        return self.lost | alone

    @property
    def unsure(self) -> bool:
        """Whether a member may have opened the result over direct links.

        One opens when all others have confirmed. Of two that say that they have not, one at least
        is honest.
        """
        confirmed = [report.released for report in self.reports.values()]
        return (bool(self.silent) or any(confirmed)) and confirmed.count(False) < 2

    @property
    def reason(self) -> str:
        """What the members say, for people."""
        said = [f"member {m}: {reason}" for m, reason in sorted(self.failures.items())]
        for m, report in sorted(self.reports.items()):
            said.append(
                f"member {m} gave up when its part of the result was out"
                if report.gave_up
                else f"member {m} lost member {report.lost}"
            )
        return "; ".join(said)


@dataclass
class Sitting:
    """Four members at work in one round.

    Attributes
    ----------
    settings, link, size:
        The run's, the round's, and the length of what is opened.
    attempt:
        Number of the last attempt in the round.
    to_blame:
        Numbers of members without whom the next round may do better, once an attempt has failed.
    lost:
        Numbers of those that do not answer, as far as known.
    """

    settings: Settings
    link: Link
    size: int
    seats: tuple[Seat, ...]
    to_blame: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.attempt = max(seat.attempt for seat in self.seats)

    @property
    def members(self) -> tuple[MemberKeys, ...]:
        """Keys of the four."""
        return tuple(seat.keys for seat in self.seats)

    def toss(self) -> None:
        """Have the members toss the seating's keys, unless they all hold them.

        Raises
        ------
        CommitteeError
            If they do not come to an end. Tossed keys are no result: nothing is released.
        """
        name = seating_of(self.settings, self.members)
        unready = frozenset(m for m, seat in enumerate(self.seats) if name not in seat.ready)
        if not unready:
            return
        self.attempt += 1
        work = Work(TOSS, self.attempt, self.seats)
        try:
            self._relay(dict.fromkeys(range(MEMBERS), work))
        except CommitteeError as error:
            # One that has lost keys with which the others have computed cannot toss them again.
            self.to_blame |= unready if len(unready) < MEMBERS else frozenset()
            error.released = False
            raise

    def compute(
        self, clients: Mapping[int, DealingKey], dealt: Mapping[int, tuple[bytes, ...]]
    ) -> dict[int, Progress]:
        """Let the members compute on what was dealt to them; raises CommitteeError if one of them
        comes to no result.
        """
        self.attempt += 1
        return self._relay(
            {
                m: Work(
                    AGGREGATE,
                    self.attempt,
                    self.seats,
                    clients,
                    {number: parts[m] for number, parts in dealt.items()},
                )
                for m in range(MEMBERS)
            }
        )

    def _relay(self, works: Mapping[int, Work]) -> dict[int, Progress]:
        """Pass sealed messages on until every member is done."""
        member_at = {seat.node: m for m, seat in enumerate(self.seats)}
        finished: dict[int, Progress] = {}
        while works:
            answers = self.link.ask(
                COMMITTEE,
                {self.seats[m].node: encode(self.link.header, w) for m, w in works.items()},
                lambda _, content: _progress(content, self.size),
                lambda found: _one_is_lost({member_at[n]: p for n, p in found.items()}),
            )
            found = {member_at[node]: progress for node, progress in answers.values.items()}
            finished |= {m: progress for m, progress in found.items() if progress.done}
            reports = {m: p for m, p in found.items() if p.gave_up or p.lost != NOBODY}
            if answers.failures or reports:
                failures = {member_at[n]: reason for n, reason in answers.failures.items()}
                silent = frozenset(member_at[node] for node in answers.lost)
                raise self._failed(Ended(failures, silent, reports, finished))
            works = _deliveries(found, set(finished))
        if len(finished) < MEMBERS:
            raise CommitteeError("the committee's members wait for each other", released=True)
        return finished

    def _failed(self, ended: Ended) -> CommitteeError:
        """Say why a round ended, having asked the members whether it counts as released."""
        self.to_blame, self.lost = ended.to_blame, ended.lost
        working = set(range(MEMBERS)) - set(ended.finished) - set(ended.failures)
        released = bool(ended.finished) or any(p.gave_up for p in ended.reports.values())
        if is_direct(self.settings):
            released |= ended.unsure
        else:
            working -= set(ended.reports)
            released |= self._abandon(working, min(ended.lost | ended.gave_up))
        return CommitteeError(
            f"the committee ended the round ({ended.reason})",
            cure="see the members' own logs",
            released=released,
        )

    def _abandon(self, members: set[int], lost: int) -> bool:
        """End members that are at work; whether one has sent its part of the result."""
        order = encode(self.link.header, Work(ABANDON, lost=lost))
        answers = self.link.ask(
            COMMITTEE,
            {self.seats[m].node: order for m in sorted(members)},
            lambda _, content: _progress(content, 0),
        )
        return bool(answers.failures) or any(p.released for p in answers.values.values())


def _progress(content: RecordDict, size: int) -> Progress:
    """Read how far a member has come, with totals of that size if any; raises ProtocolError."""
    progress = decode(Progress, content)
    if progress.totals is not None:
        check_size(progress.totals, size)
    return progress


def _deliveries(found: Mapping[int, Progress], finished: set[int]) -> dict[int, Work]:
    """Sort what members send by whom it is for."""
    post: dict[int, dict[int, list[bytes]]] = {}
    for sender, progress in found.items():
        for receiver, messages in progress.post.items():
            post.setdefault(receiver, {}).setdefault(sender, []).extend(messages)
    return {m: Work(GO_ON, post=post[m]) for m in set(post) & set(range(MEMBERS)) - finished}


def _one_is_lost(found: Mapping[int, Progress]) -> bool:
    """Whether all members but one say that they lost that one: then nobody waits for its answer."""
    missing = set(range(MEMBERS)) - set(found)
    return len(missing) == 1 and {progress.lost for progress in found.values()} == missing
