"""The questions that rooms below the federation ask of a protocol."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts.names import part_name

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings


UNRELEASED = "it claims to have released nothing, which only an aborted round of a committee can"
STRANGERS = "it names members of a committee that did not compute it"


UNTRIMMED = ("mean", "norm_checked")
"""Robust rules that drop nothing, whatever ``robust.trim`` says."""


@dataclass(frozen=True)
class Phase:
    """A timed stage of a round on the server: its name in rows, and what a console says of it."""

    name: str
    words: str


@dataclass(frozen=True)
class Noiser:
    """Who adds the noise where it is neither the client nor the server.

    Attributes
    ----------
    name:
        In ``noise_by`` of a site's policy, and in the ledger.
    words:
        For the site's page, after "the noise is added by".
    trust:
        What is relied upon, as a sentence of that page.
    """

    name: str
    words: str
    trust: str


class SiteLimits(typing.Protocol):
    """What of a site's policy belongs to one protocol."""

    @property
    def least_bucket(self) -> int:
        """Least number of clients among whose sum the site is hidden."""

    @property
    def committee(self) -> tuple[str, ...]:
        """Keys of the members to whom the site may be dealt."""


class Entered(typing.Protocol):
    """What of a round's entry in the ledger depends on the protocol."""

    @property
    def aborted(self) -> str:
        """Why the round came to nothing; empty if it did not."""

    @property
    def released(self) -> bool:
        """Whether anything of the round can have come out."""

    @property
    def committee(self) -> tuple[str, ...]:
        """Signing keys (hex) of the members that computed it."""


class Protocol(ABC):
    """One way of bringing releases together.

    Attributes
    ----------
    name:
        Value of ``aggregation.protocol``.
    shows:
        What the server is shown, for a site's page.
    sees:
        What a server sees un-noised that adds the noise itself; empty where it cannot.
    trusted_server:
        Whether the server is shown single updates, which no site allows by default.
    phases:
        Stages between training and the end of the round.
    messages:
        Names of the messages that nodes answer after training.
    member_messages:
        Those of them that only members of a committee are sent.
    members:
        Clients that compute a round's result jointly; 0 where the server does.
    noiser:
        Who adds the noise, where it is neither the client nor the server.
    """

    name: ClassVar[str]
    shows: ClassVar[str]
    sees: ClassVar[str] = ""
    trusted_server: ClassVar[bool] = False
    phases: ClassVar[tuple[Phase, ...]] = ()
    messages: ClassVar[tuple[str, ...]] = ()
    member_messages: ClassVar[tuple[str, ...]] = ()
    members: ClassVar[int] = 0
    noiser: ClassVar[Noiser | None] = None

    def group_size(self, settings: Settings) -> int:
        """Least number of clients in one of the vectors that the robust rule combines."""
        return 1

    def summed(self, settings: Settings, clients: int) -> int:
        """Clients in one of those vectors, of so many that take part."""
        return self.group_size(settings)

    def most_trim(self, settings: Settings, clients: int) -> int:
        """Largest ``robust.trim`` that so many clients allow; below 0 if they are too few."""
        return (clients // self.summed(settings, clients) - 1) // 2

    def noise_place(self, settings: Settings) -> str:
        """Who adds the noise: ``client``, ``server``, or the name of the protocol's own noiser."""
        return self.noiser.name if self.noiser else settings.privacy.noise

    def check(self, settings: Settings) -> None:
        """Refuse settings with which no round can be run.

        Raises
        ------
        SettingsError
            Names them, and the cure.
        """
        self.check_cohort(settings, settings.federation.min_clients, "federation.min_clients")

    def check_cohort(self, settings: Settings, clients: int, named: str) -> None:
        """Refuse so many clients, of which nobody has trained yet, if the rule cannot trim them.

        Parameters
        ----------
        named:
            What says so many.

        Raises
        ------
        SettingsError
            Names it, and the trim that fits.
        """
        size, trim = self.group_size(settings), trimmed_by(settings)
        if (most := self.most_trim(settings, clients)) < trim:
            needed = required_clients(size, trim)
            raise impossible(
                f"{named} = {clients} is too small for robust.trim = {trim} in groups of {size}: "
                f"{needed} clients are needed",
                f"set {named} >= {needed}, or robust.trim <= {max(0, most)}",
            )

    @abstractmethod
    def adversaries(self, settings: Settings, size: int) -> list[tuple[str, float]]:
        """Adversaries beside a trusted server, with the noise multiplier that each faces.

        Parameters
        ----------
        settings:
            Of a run with a privacy unit.
        size:
            Clients of the smallest group that was formed.

        Returns
        -------
        list
            The one that ``privacy.max_epsilon`` means first.
        """

    def broken(self, settings: Settings, limits: SiteLimits) -> Iterator[tuple[str, str]]:
        """Code of a refusal and words for the site's log, for each limit that a run breaks."""
        yield from ()

    @abstractmethod
    def page(self, limits: SiteLimits) -> Iterator[str]:
        """Paragraphs of a site's page that explain to a lawyer what the server is shown."""

    def entry_faults(self, entry: Entered, settings: Settings) -> Iterator[str]:
        """What cannot be true of a round's entry in the ledger."""
        if not entry.released:
            yield UNRELEASED
        if entry.committee:
            yield STRANGERS


def impossible(problem: str, cure: str) -> SettingsError:
    """Make the error of settings that cannot go together."""
    return SettingsError(problem, cure=cure)


def required_clients(bucket_size: int, trim: int) -> int:
    """Least cohort for which ``trim`` attackers can be trimmed: 2 trim + 1 groups of
    ``bucket_size``.
    """
    return bucket_size * (2 * trim + 1)


def trimmed_by(settings: Settings) -> int:
    """Values that the rule counts as possibly bad at either end: ``robust.trim``, or none."""
    return 0 if part_name(settings.robust.rule) in UNTRIMMED else settings.robust.trim
