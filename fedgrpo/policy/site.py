"""A site that decides for itself: its policy, its account, and the way past both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedgrpo.policy.account import check_spending, round_entry
from fedgrpo.policy.checks import check_round
from fedgrpo.policy.limits import Policy
from fedgrpo.policy.spending import SpendingFile
from fedgrpo.settings import Scalar, Settings

POLICY_FILE = "policy.toml"
"""Name of the policy beside the prompts, where the node's configuration names none."""


@dataclass(frozen=True)
class Request:
    """One release that a server asks for.

    Attributes
    ----------
    settings:
        The run's.
    run, round:
        Which.
    clipping_norm:
        C of this round.
    plan:
        SHA-256 (hex) of everything that decides the release.
    """

    settings: Settings
    run: int
    round: int
    clipping_norm: float
    plan: str


@dataclass(frozen=True)
class Site:
    """A policy and the account that it keeps.

    Attributes
    ----------
    policy:
        What the owner allows.
    spending:
        What has been spent.
    """

    policy: Policy
    spending: SpendingFile

    @classmethod
    def open(cls, path: Path) -> Site:
        """Read a site's policy file.

        Raises
        ------
        PolicyError
            If it cannot be read.
        """
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

    def charge(self, request: Request, now: datetime) -> None:
        """Spend what a release costs, or refuse it, before it is computed.

        Adversary: a server that asks for any number of runs and rounds. Every plan is charged once,
        before any prompt is read, whatever becomes of the round; only a plan that is the same in
        everything that decides the release is not charged again.

        Raises
        ------
        PolicyError
            If the site's largest epsilon or number of rounds would be passed, or the account cannot
            be kept.
        """
        entry = round_entry(
            request.settings,
            at=now.isoformat(timespec="seconds"),
            run=request.run,
            round=request.round,
            plan=request.plan,
        )
        self.spending.charge(entry, lambda entries: check_spending(self.policy, entries))


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
