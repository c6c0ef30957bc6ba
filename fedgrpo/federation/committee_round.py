"""The server's part in a round over the committee: pass on what it cannot read, take the result.

Adversary: the server runs this and is honest but curious. It sees who takes part, lengths and
times, and the opened mean with its noise; never a release, and no sum without noise. A malicious
one can end rounds, and, where ``aggregation.allow_three`` is set, cut a member off. It cannot read
or alter a message, choose the noise, or have a round opened twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgrpo.errors import CohortError
from fedgrpo.federation.committee_messages import (
    ABANDON,
    AGGREGATE,
    COMMITTEE,
    DEAL,
    GO_ON,
    NOBODY,
    TOSS,
    Dealer,
    DealOrder,
    Progress,
    Work,
    read_dealt,
    read_progress,
    write_deal,
    write_work,
)
from fedgrpo.federation.committee_plan import (
    committee_plan,
    is_direct,
    mean_of,
    pinned_members,
    write_keys,
)
from fedgrpo.federation.link import Link, refusal_words
from fedgrpo.federation.secure_round import Failures, Phase
from fedgrpo.policy.refusals import Refusal
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings

LOG = logging.getLogger(__name__)


class CommitteeError(CohortError):
    """The committee ended a round without a result.

    Parameters
    ----------
    problem, cure:
        As for every error.
    released:
        Whether somebody may have the result all the same: then the round has cost its epsilon.
    lost:
        Number of the member that fell silent, if that was the reason and it alone was.
    """

    def __init__(
        self, problem: str, *, cure: str = "", released: bool = False, lost: int = NOBODY
    ) -> None:
        super().__init__(problem, cure=cure)
        self.released, self.lost = released, lost


@dataclass(frozen=True)
class CommitteeMean:
    """What a round opened.

    Attributes
    ----------
    mean:
        float64, shape (size,): robust mean of the releases, noised.
    clients:
        Nodes whose releases were shared out to the members properly.
    groups:
        Values that the rule saw in each coordinate.
    members:
        Who computed it: four, or three after one was lost.
    failures:
        Why nodes are missing from it.
    """

    mean: NDArray[np.float64]
    clients: tuple[int, ...]
    groups: int
    members: tuple[MemberKeys, ...]
    failures: Failures


@dataclass(frozen=True)
class _Ended:
    """How an attempt ended without a result, by member."""

    failures: Mapping[int, str]
    """Why members did not answer, or gave up."""
    silent: frozenset[int]
    """Those among them that did not answer."""
    reports: Mapping[int, Progress]
    """Of those that lost another one on a direct link."""
    finished: Mapping[int, Progress]

    @property
    def lost(self) -> frozenset[int]:
        return self.silent | {report.lost for report in self.reports.values()}

    @property
    def gave_up(self) -> frozenset[int]:
        return frozenset(self.failures) - self.silent

    @property
    def alone(self) -> int:
        """The member that was lost, if one was and nothing else happened."""
        if len(self.lost) != 1 or self.gave_up or self.finished:
            return NOBODY
        return next(iter(self.lost))

    @property
    def three_have_it(self) -> bool:
        """Whether three have the result, and the fourth fell silent when it had helped them."""
        return len(self.finished) == MEMBERS - 1 and len(self.silent) == 1

    @property
    def unsure(self) -> bool:
        """Whether a member may have opened the result over direct links.

        One opens when all others have confirmed. Of two that say that they have not, one at least
        is honest.
        """
        confirmed = [report.released for report in self.reports.values()]
        return (bool(self.silent) or any(confirmed)) and confirmed.count(False) < 2


@dataclass
class CommitteeServer:
    """What the server knows of the committee in one run."""

    settings: Settings
    keys: tuple[MemberKeys, ...] = ()
    seats: dict[int, int] = field(default_factory=dict)
    """Node of each member, as far as known."""
    ready: dict[int, bool] = field(default_factory=dict)
    """Whether each member holds the run's keys, as far as known."""
    attempt: int = 0
    """Number of the last attempt, through the whole run."""
    absent: set[int] = field(default_factory=set)
    """Members that were lost, until they are seen again."""

    @property
    def signers(self) -> dict[int, str]:
        """Signing keys (hex) of the members that are there, by node."""
        present = {m: node for m, node in self.seats.items() if m not in self.absent}
        return {node: self.keys[m].signing.hex() for m, node in present.items()}

    def missed(self, nodes: Set[int]) -> None:
        """Take note of members that did not answer: nobody waits for them until they are back."""
        self.absent |= {m for m, node in self.seats.items() if node in nodes}

    def run(
        self, link: Link, dealers: Mapping[int, Dealer], plan: ReleasePlan, phase: Phase
    ) -> CommitteeMean:
        """Have the finishers' releases dealt and aggregated.

        Raises
        ------
        CohortError
            If there are too few dealers; nothing has been dealt.
        CommitteeError
            If the members came to no result.
        """
        committee_plan(self.settings, plan, len(dealers))
        self._seat(dealers)
        with phase("committee"):
            self._toss(link, plan.size)
        # By their keys, which a repeated round finds again, while Flower's ids may be others.
        nodes = dict(enumerate(sorted(dealers, key=lambda node: dealers[node].signing)))
        clients = {number: dealers[node].signing for number, node in nodes.items()}
        with phase("deal"):
            order = write_deal(DealOrder(link.header, self.keys, clients))
            dealt = link.ask(DEAL, dict.fromkeys(dealers, order), lambda _, c: read_dealt(c))
        # All that the members can admit: too few end the round before they have computed anything.
        committee_plan(self.settings, plan, len(dealt.values))
        messages = {n: dealt.values[node] for n, node in nodes.items() if node in dealt.values}
        with phase("committee"):
            progress = self._compute(link, clients, messages, plan)
        return self._read(progress, nodes, dealt.failures, plan)

    def _seat(self, dealers: Mapping[int, Dealer]) -> None:
        """Find out which nodes are the members: those that the settings name or, in a simulation,
        the four that offer themselves.
        """
        able = {node: dealer.seat for node, dealer in dealers.items() if dealer.seat}
        if not self.keys:
            offered = sorted((seat.keys for seat in able.values()), key=write_keys)
            self.keys = pinned_members(self.settings) or tuple(offered[:MEMBERS])
        for node, seat in able.items():
            if seat.keys in self.keys:
                member = self.keys.index(seat.keys)
                self.seats[member], self.ready[member] = node, seat.ready
                self.absent.discard(member)
                self.attempt = max(self.attempt, seat.attempt)
        if len(self.seats) < MEMBERS:
            missing = [str(m) for m in range(MEMBERS) if m not in self.seats]
            if len(self.keys) < MEMBERS:
                self.keys, self.seats = (), {}
            raise CommitteeError(
                f"committee members {', '.join(missing)} have not been seen",
                cure="start their nodes with the keys that aggregation.committee names",
            )

    def _toss(self, link: Link, size: int) -> None:
        """Have the members toss the run's keys, unless they all hold them."""
        if all(self.ready.values()):
            return
        self.attempt += 1
        work = Work(TOSS, self.attempt, self.keys)
        self._relay(link, dict.fromkeys(range(MEMBERS), work), size)
        self.ready = dict.fromkeys(range(MEMBERS), True)

    def _compute(
        self,
        link: Link,
        clients: Mapping[int, bytes],
        dealt: Mapping[int, tuple[bytes, ...]],
        plan: ReleasePlan,
    ) -> dict[int, Progress]:
        """Let the members compute; once more without one that fell silent, if that is allowed."""
        self.attempt += 1
        works = {
            m: Work(
                AGGREGATE,
                self.attempt,
                self.keys,
                clients,
                {number: parts[m] for number, parts in dealt.items()},
            )
            for m in range(MEMBERS)
        }
        try:
            return self._relay(link, works, plan.size)
        except CommitteeError as error:
            if error.lost == NOBODY:
                raise
            LOG.warning(f"{error.problem}; the other three go on")
            return self._go_on(link, error, plan.size)

    def _go_on(self, link: Link, first: CommitteeError, size: int) -> dict[int, Progress]:
        """Let three members compute."""
        self.attempt += 1
        work = Work(AGGREGATE, self.attempt, self.keys, lost=first.lost)
        try:
            return self._relay(link, {m: work for m in range(MEMBERS) if m != first.lost}, size)
        except CommitteeError as error:
            error.released |= first.released
            raise

    def _relay(self, link: Link, works: Mapping[int, Work], size: int) -> dict[int, Progress]:
        """Pass sealed messages on until every member is done."""
        member_at = {self.seats[m]: m for m in works}
        finished: dict[int, Progress] = {}
        contents = {self.seats[m]: write_work(link.header, work) for m, work in works.items()}
        while contents:
            answers = link.ask(
                COMMITTEE,
                contents,
                lambda _, c: read_progress(c, size),
                lambda found: _one_is_lost({member_at[n]: p for n, p in found.items()}, works),
            )
            found = {member_at[node]: progress for node, progress in answers.values.items()}
            finished |= {m: progress for m, progress in found.items() if progress.done}
            reports = {m: progress for m, progress in found.items() if progress.lost != NOBODY}
            if answers.failures or reports:
                failures = {member_at[n]: reason for n, reason in answers.failures.items()}
                silent = frozenset(member_at[node] for node in answers.lost)
                ended = _Ended(failures, silent, reports, finished)
                if self.settings.aggregation.allow_three and ended.three_have_it:
                    return finished
                error = self._failed(link, set(works) - set(finished) - set(failures), ended)
                # Tossed keys are no result.
                error.released &= any(work.task == AGGREGATE for work in works.values())
                raise error
            post: dict[int, dict[int, list[bytes]]] = {}
            for sender, progress in found.items():
                for receiver, messages in progress.post.items():
                    post.setdefault(receiver, {}).setdefault(sender, []).extend(messages)
            contents = {
                self.seats[m]: write_work(link.header, Work(GO_ON, post=post[m]))
                for m in set(post) & set(works) - set(finished)
            }
        if set(finished) != set(works):
            raise CommitteeError("the committee's members wait for each other", released=True)
        return finished

    def _failed(self, link: Link, working: set[int], ended: _Ended) -> CommitteeError:
        """Say why a round ended, having asked the members whether it counts as released."""
        self.absent |= ended.lost
        reasons = [f"member {m}: {reason}" for m, reason in sorted(ended.failures.items())]
        reasons += [f"member {m} lost member {p.lost}" for m, p in sorted(ended.reports.items())]
        opened = refusal_words(Refusal.OPENED) in ended.failures.values()
        retry = ended.alone != NOBODY and self.settings.aggregation.allow_three
        if is_direct(self.settings):
            opened |= ended.unsure
        elif retry:
            opened = True  # Nobody was asked: the members may have been at their very end.
        else:
            opened |= self._abandon(link, working, min(ended.lost | ended.gave_up))
        return CommitteeError(
            f"the committee ended the round ({'; '.join(reasons)})",
            cure="see the members' own logs",
            released=opened or bool(ended.finished),
            lost=ended.alone if retry else NOBODY,
        )

    def _abandon(self, link: Link, members: set[int], lost: int) -> bool:
        """End members that are at work; whether one has sent its part of the result."""
        order = write_work(link.header, Work(ABANDON, lost=lost))
        answers = link.ask(
            COMMITTEE,
            {self.seats[m]: order for m in sorted(members)},
            lambda _, content: read_progress(content, 0),
        )
        return bool(answers.failures) or any(p.released for p in answers.values.values())

    def _read(
        self,
        progress: Mapping[int, Progress],
        nodes: Mapping[int, int],
        failures: Failures,
        plan: ReleasePlan,
    ) -> CommitteeMean:
        """Take the result, on which the members must agree. ``nodes`` are the dealers by number."""
        first = next(iter(progress.values()))
        agree = all(
            p.clients == first.clients and np.array_equal(_totals(p), _totals(first))
            for p in progress.values()
        )
        if not agree or first.totals is None or not set(first.clients) <= set(nodes):
            raise CommitteeError(
                "the committee's members report different results",
                cure="have the members checked: at least one of them lies",
                released=True,
            )
        computed = committee_plan(self.settings, plan, len(first.clients))
        left_out = {nodes[n]: "its shares did not fit" for n in set(nodes) - set(first.clients)}
        return CommitteeMean(
            mean_of(first.totals, computed, plan),
            tuple(nodes[number] for number in first.clients),
            computed.groups,
            tuple(self.keys[m] for m in sorted(progress)),
            left_out | failures,
        )


def _one_is_lost(found: Mapping[int, Progress], works: Mapping[int, Work]) -> bool:
    """Whether all members but one say that they lost that one: then nobody waits for its answer."""
    missing = set(works) - set(found)
    return len(missing) == 1 and {progress.lost for progress in found.values()} == missing


def _totals(progress: Progress) -> NDArray[np.uint64]:
    return np.zeros(0, np.uint64) if progress.totals is None else progress.totals
