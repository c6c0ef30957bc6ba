"""How a site's account stands: what is spent, and of how much."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fedgrpo.ground.files import replace_file
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


class Spent(BaseModel):
    """What releases came to, kept so that who only looks need not add them up.

    Attributes
    ----------
    head:
        Hash of the account's last line, and of a torn one behind it.
    delta:
        At which epsilon is stated.
    epsilon:
        By unit.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants"
    )

    head: str
    delta: float
    epsilon: dict[str, float]

    @classmethod
    def of(cls, policy: Policy, history: History) -> Spent:
        """Add up."""
        units = [unit for unit in UNITS if policy.limits(unit)]
        spent = {unit: spent_epsilon(history.counted, unit, policy.delta) for unit in units}
        return cls(head=_head(history), delta=policy.delta, epsilon=spent)

    @classmethod
    def read(cls, file: Path, policy: Policy, history: History) -> Spent | None:
        """Read what was kept; None if it is not of this account as it stands."""
        try:
            found = cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None
        return found if (found.head, found.delta) == (_head(history), policy.delta) else None

    def keep(self, file: Path) -> None:
        """Write it; raises OSError if the disk fails."""
        replace_file(file, self.model_dump_json().encode(), mode=0o600, durable=False)


def _head(history: History) -> str:
    return hashlib.sha256(history.head.encode() + history.torn).hexdigest()


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
        Those that the policy knows; those of which nobody has added up are not there.
    """

    releases: int
    most_releases: int
    without_noise: int
    delta: float
    torn: bool
    units: tuple[UnitStanding, ...]

    @classmethod
    def of(cls, policy: Policy, history: History, epsilon: Mapping[str, float]) -> Standing:
        """Put together what the file holds.

        Parameters
        ----------
        policy, history:
            Of the site.
        epsilon:
            What it comes to, by unit, as far as it is known.
        """
        counted = history.counted
        return cls(
            releases=len(counted),
            most_releases=policy.rounds,
            without_noise=sum(entry.noise_multiplier == 0 for entry in counted),
            delta=policy.delta,
            torn=bool(history.torn),
            units=tuple(
                UnitStanding(unit, epsilon[unit], limits.largest_epsilon)
                for unit in UNITS
                if (limits := policy.limits(unit)) and unit in epsilon
            ),
        )

    @property
    def words(self) -> str:
        """In one line: ``12 of 1000 releases, epsilon 0.87 of 8 for a prompt``."""
        spent = [f"epsilon {u.epsilon:.2f} of {u.limit:g} for a {u.unit}" for u in self.units]
        return ", ".join([f"{self.releases} of {self.most_releases} releases", *spent])
