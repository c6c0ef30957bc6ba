"""How a site's account stands: what is spent, and of how much."""

from __future__ import annotations

from dataclasses import dataclass

from fedgrpo.site.account.costs import UNITS, spent_epsilon
from fedgrpo.site.account.spending import History
from fedgrpo.site.limits import Policy


@dataclass(frozen=True)
class UnitStanding:
    """What is spent for one unit.

    Attributes
    ----------
    unit:
        ``prompt`` or ``client``.
    epsilon, limit:
        Spent, and the most that the policy allows.
    """

    unit: str
    epsilon: float
    limit: float


@dataclass(frozen=True)
class Standing:
    """An account at a moment. It follows from what was asked, and from no prompt.

    Attributes
    ----------
    releases, most_releases:
        Answered, and the most that the policy allows.
    without_noise:
        Those among them that have no epsilon.
    delta:
        At which epsilons are stated.
    torn:
        Whether a crash has torn the last line, which counts.
    units:
        Those that the policy knows.
    """

    releases: int
    most_releases: int
    without_noise: int
    delta: float
    torn: bool
    units: tuple[UnitStanding, ...]

    @classmethod
    def of(cls, policy: Policy, history: History) -> Standing:
        """Add up what the file holds."""
        counted = history.counted
        return cls(
            releases=len(counted),
            most_releases=policy.rounds,
            without_noise=sum(entry.noise_multiplier == 0 for entry in counted),
            delta=policy.delta,
            torn=bool(history.torn),
            units=tuple(
                UnitStanding(
                    unit, spent_epsilon(counted, unit, policy.delta), limits.largest_epsilon
                )
                for unit in UNITS
                if (limits := policy.limits(unit))
            ),
        )

    @property
    def words(self) -> str:
        """In one line: ``12 of 1000 releases, epsilon 0.87 of 8 for a prompt``."""
        spent = [f"epsilon {u.epsilon:.2f} of {u.limit:g} for a {u.unit}" for u in self.units]
        return ", ".join([f"{self.releases} of {self.most_releases} releases", *spent])
