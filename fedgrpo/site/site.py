"""A site that decides for itself: its policy, its account, and the way past both."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.account.costs import check_spending, round_entry
from fedgrpo.site.account.mishaps import MishapFile
from fedgrpo.site.account.spending import Entry, SpendingFile
from fedgrpo.site.account.standing import Spent, Standing
from fedgrpo.site.checks import check_round
from fedgrpo.site.limits import Policy

POLICY_FILE = "policy.toml"
"""Name of the policy beside the prompts, where the node's configuration names none."""


@dataclass(frozen=True)
class Request:
    """One release that a server asks for."""

    settings: Settings
    run: int
    round: int
    clipping_norm: float
    """C of this round."""
    plan: str
    """SHA-256 (hex) of everything that decides the release, but the node's secret."""
    secret: str = ""
    """Fingerprint (32 hex digits) of that."""

    def entry(self, now: datetime) -> Entry:
        """Write down the release for the account."""
        costs = round_entry(
            self.settings,
            at=now.isoformat(timespec="seconds"),
            run=self.run,
            round=self.round,
            plan=self.plan,
        )
        return replace(costs, secret=self.secret)


@dataclass(frozen=True)
class Site:
    """A policy and the account that it keeps."""

    policy: Policy
    """What the owner allows."""
    spending: SpendingFile
    """What has been spent."""

    @classmethod
    def open(cls, path: Path) -> Site:
        """Read a site's policy file; raises PolicyError if it cannot be read."""
        policy = Policy.from_toml(path)
        return cls(policy, SpendingFile(path.parent / policy.spent))

    def check(self, request: Request, now: datetime) -> None:
        """Refuse what breaks the policy. Nothing is spent and no prompt is touched.

        Raises
        ------
        PolicyError
            With a code and a cure.
        """
        check_round(self.policy, request.settings, request.clipping_norm, now)

    def charge(self, request: Request, now: datetime) -> bool:
        """Spend what a release costs, or refuse it, before it is computed.

        Adversary: a server that asks for any number of runs and rounds. Every plan is charged once,
        before any prompt is read, whatever becomes of the round; only a plan that is the same in
        everything that decides the release is not charged again. Raises PolicyError if the site's
        largest epsilon or number of rounds would be passed, or the account cannot be kept.

        Returns
        -------
        bool
            False if it was charged before.
        """
        return self.spending.charge(
            request.entry(now), lambda entries: check_spending(self.policy, entries)
        )

    def is_charged(self, request: Request, now: datetime) -> bool:
        """Whether this very release was charged before: its process died, or its answer was lost.
        Raises PolicyError if the account cannot be read.
        """
        entry = request.entry(now)
        return any(made.is_release_of(entry) for made in self.spending.read().entries)

    def standing(self) -> Standing:
        """How the account stands, which is kept beside it for :meth:`seen_standing`.

        Raises
        ------
        PolicyError
            If the account cannot be read.
        """
        history = self.spending.read()
        spent = Spent.read(self._spent, self.policy, history)
        if spent is None:
            spent = Spent.of(self.policy, history)
            with contextlib.suppress(OSError):
                spent.keep(self._spent)
        return Standing.of(self.policy, history, spent.epsilon)

    def seen_standing(self) -> tuple[Standing, Entry | None]:
        """How the account stands, by a look alone, and its last release; epsilon is left out where
        nobody has added it up. Raises PolicyError if the account cannot be read.
        """
        history = self.spending.read()
        spent = Spent.read(self._spent, self.policy, history)
        last = next((each for each in reversed(history.entries) if not each.torn), None)
        return Standing.of(self.policy, history, spent.epsilon if spent else {}), last

    @property
    def _spent(self) -> Path:
        path = self.spending.path
        return path.with_name(f"{path.stem}.epsilon.json")

    @property
    def mishaps(self) -> MishapFile:
        """What went wrong here, beside the account."""
        path = self.spending.path
        return MishapFile(path.with_name(f"{path.stem}.mishaps.jsonl"))


def is_simulated(node_config: Mapping[str, Scalar]) -> bool:
    """Whether a node is one of a simulation, and so its own site."""
    return "partition-id" in node_config


def find_policy(node_config: Mapping[str, Scalar]) -> Path | None:
    """Path of a node's policy: named by its own configuration, or beside its prompts."""
    if "policy" in node_config:
        return Path(str(node_config["policy"])).expanduser()
    if "prompts" not in node_config:
        return None
    beside = Path(str(node_config["prompts"])).expanduser().parent / POLICY_FILE
    return beside if beside.exists() else None


def site_of(node_config: Mapping[str, Scalar]) -> Site | None:
    """Open the site that a node's own configuration names; None if it has no policy.

    Raises
    ------
    PolicyError
        If there is a policy and it cannot be read: a site that means to decide never falls back to
        having no say.
    """
    path = find_policy(node_config)
    return None if path is None else Site.open(path)
