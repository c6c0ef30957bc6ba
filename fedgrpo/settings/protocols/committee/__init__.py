"""``committee``: four clients compute on shares, and the server sees the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedgrpo.settings.protocols.base import (
    STRANGERS,
    UNRELEASED,
    Entered,
    Noiser,
    Phase,
    Protocol,
    SiteLimits,
    impossible,
    trimmed_by,
)
from fedgrpo.settings.protocols.committee.groups import (
    LEFT,
    MOST_GROUPS,
    bucket_of,
    groups_of,
    most_trim,
)
from fedgrpo.settings.protocols.committee.members import (
    MEMBER_KEYS,
    MEMBERS,
    committee_problem,
    committee_words,
    signing_keys,
)

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings

RULES = ("trimmed_mean", "median", "norm_checked")
"""Robust rules that can be computed on shares."""
_UNBOUNDED = "nobody sees the releases, so one that is a thousand times too long would decide it"
_UNSERVED = (
    "members have circuits for those below only, and where distances decide, one prompt can flip "
    "who is whose neighbour, which no noise after the rule hides"
)
_MEMBER = re.compile(MEMBER_KEYS + r"(@\S+:\d{1,5})?")


class Committee(Protocol):
    """The robust rule and the noise on shares, see :mod:`fedgrpo.secure.committee`."""

    name = "committee"
    shows = "the result of a committee"
    phases = (
        Phase("deal", "dealing shares to the committee"),
        Phase("committee", "computing on shares in the committee"),
    )
    messages = ("deal", "committee", "cosign")
    member_messages = ("committee", "cosign")
    members = MEMBERS
    noiser = Noiser(
        "committee",
        "the four members of a committee together, before they show anything",
        "Of a committee it is relied upon that no two members conspire.",
    )

    def check(self, settings: Settings) -> None:
        """Refuse noise that members do not add, rules that they cannot compute, and small cohorts.

        Raises
        ------
        SettingsError
            Names them, and the cure.
        """
        if settings.privacy.unit != "none" and settings.privacy.noise == "client":
            raise impossible(
                "privacy.noise = 'client' cannot go with aggregation.protocol = 'committee', whose "
                "members add the noise jointly after trimming",
                "set privacy.noise = 'server'",
            )
        if (rule := settings.robust.rule) not in RULES:
            why = _UNBOUNDED if rule == "mean" else _UNSERVED
            raise impossible(
                f"robust.rule = {rule!r} cannot be computed by a committee: {why}",
                f"choose from {', '.join(RULES)}",
            )
        if drawn := settings.federation.cohort:
            raise impossible(
                f"federation.cohort = {drawn} cannot go with aggregation.protocol = 'committee': "
                "its members are found among the clients of each round",
                "set federation.cohort = 0, or aggregation.protocol = 'buckets'",
            )
        super().check(settings)

    def summed(self, settings: Settings, clients: int) -> int:
        """Clients whose sum is trimmed as one value; norms are checked of each by itself."""
        return 1 if settings.robust.rule == "norm_checked" else bucket_of(clients)

    def most_trim(self, settings: Settings, clients: int) -> int:
        """As many as leave the mean something; of a median, as it withstands."""
        if settings.robust.rule == "trimmed_mean":
            return most_trim(clients)
        return (groups_of(clients) - 1) // 2

    def check_cohort(self, settings: Settings, clients: int, named: str) -> None:
        """See :meth:`Protocol.check_cohort`: more clients do not always allow more, as beyond 20
        they are summed in groups.
        """
        trim = trimmed_by(settings)
        if (most := self.most_trim(settings, clients)) >= trim:
            return
        fitting = [n for n in range(LEFT, MOST_GROUPS + 1) if self.most_trim(settings, n) >= trim]
        cures = [f"set robust.trim <= {max(most, 0)}"]
        if fitting and clients < fitting[0]:
            cures = [f"set {named} >= {fitting[0]}", *cures]
        elif fitting:
            cures = [*cures, f"have {MOST_GROUPS} take part at most"]
        raise impossible(
            f"robust.trim = {trim} is too much for {named} = {clients} over a committee, which "
            f"trims them as {groups_of(clients)} values in each coordinate",
            ", or ".join(cures),
        )

    def adversaries(self, settings: Settings, size: int) -> list[tuple[str, float]]:
        """Everybody outside, and one curious member, who can take three of the four shares of the
        noise off: half of its standard deviation is left.
        """
        noise = settings.privacy.noise_multiplier
        return [
            (
                "everybody but the committee, the server and all other clients among them; "
                "no two members of the committee collude",
                noise,
            ),
            (
                "one curious committee member, who knows three of the four shares of the noise",
                noise / 2,
            ),
        ]

    def broken(self, settings: Settings, limits: SiteLimits) -> Iterator[tuple[str, str]]:
        """Members to whom the site does not agree."""
        if problem := committee_problem(limits.committee, settings):
            yield "committee", problem

    def page(self, limits: SiteLimits) -> Iterator[str]:
        """Who holds the shares, and what they could do."""
        yield from committee_words(limits.committee)

    def entry_faults(self, entry: Entered, settings: Settings) -> Iterator[str]:
        """Whether those who computed a round sit on the committee that the settings list."""
        if not entry.released and not entry.aborted:
            yield UNRELEASED
        members = entry.committee
        if entry.aborted:
            if members:
                yield STRANGERS
        elif len(set(members)) != len(members) or len(members) != MEMBERS:
            yield f"{len(members)} members computed it, and {MEMBERS} do"
        elif settings.aggregation.committee and not set(members) <= signing_keys(settings):
            yield "a member that computed it is not on the committee that the settings list"


def check_named(settings: Settings) -> None:
    """Refuse a list of members that names no committee, whether or not the run has one.

    Raises
    ------
    SettingsError
        Names it, and the cure.
    """
    named = settings.aggregation.committee
    if named and (
        len(named) < MEMBERS
        or len(signing_keys(settings)) != len(named)
        or not all(_MEMBER.fullmatch(name) for name in named)
    ):
        raise impossible(
            f"aggregation.committee = {', '.join(named)!r} does not name four different members or "
            "more",
            "give KEYS or KEYS@HOST:PORT of each, with the 128 hex digits that 'fedgrpo "
            "committee-key' prints",
        )
