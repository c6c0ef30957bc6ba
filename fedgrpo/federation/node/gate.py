"""Where a round meets the policy of the site that it asks: before any prompt is opened."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from fedgrpo.data.ownership import prompts_stamp
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.federation.wire.messages import TrainOrder
from fedgrpo.federation.wire.plans import plan_hash
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Request, Site, is_simulated, refused, site_of
from fedgrpo.site.absent import broken_without_policy
from fedgrpo.site.checked import broken_files, check_prompts, check_unchanged
from fedgrpo.site.declared import Declared, broken_declarations

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""


@dataclass(frozen=True)
class Gate:
    """A request, and the site that judges it.

    A deployed node without a policy lets nothing pass; a simulated one, which is its own site, all.
    """

    site: Site | None
    """From the node's own configuration."""
    node_config: Mapping[str, Scalar]
    request: Request
    """What the server asks for."""
    now: datetime
    """Local time."""

    @classmethod
    def at(
        cls,
        node_config: Mapping[str, Scalar],
        order: TrainOrder,
        plan: ReleasePlan,
        store: NodeStore,
        settings: Settings,
        declared: Declared,
    ) -> Gate:
        """Read the node's policy; raises PolicyError if it has one that cannot be read."""
        source = source_of(node_config, declared)
        request = Request(
            settings=settings,
            run=order.header.run_id,
            round=order.header.round,
            clipping_norm=plan.clipping_norm,
            plan=plan_hash(settings, order, plan, source),
            secret=store.fingerprint,
        )
        return cls(site_of(node_config), node_config, request, datetime.now())

    def check(self) -> None:
        """Refuse what breaks the policy or does not fit what is declared; raises PolicyError."""
        if self.site:
            self.site.check(self.request, self.now)
        if not is_simulated(self.node_config):
            self._check_deployed()

    def _check_deployed(self) -> None:
        settings = self.request.settings
        broken = (
            (
                *broken_declarations(self.site.policy, settings),
                *broken_files(self.site.policy, settings, self.node_config),
            )
            if self.site
            else broken_without_policy(settings)
        )
        for code, problem in broken:
            raise refused(code, problem)
        if self.site:
            check_prompts(self.node_config, settings)

    def check_unchanged(self) -> None:
        """Raise DataError if the prompts are not those that were checked; after the charge."""
        if self.site and not is_simulated(self.node_config):
            check_unchanged(self.node_config, self.request.settings, self.site.policy)

    def is_charged(self) -> bool:
        """Whether this very release was charged before; raises PolicyError."""
        return bool(self.site and self.site.is_charged(self.request, self.now))

    def charge(self) -> None:
        """Spend what the release costs, durably, or refuse it; raises PolicyError."""
        if not self.site or not self.site.charge(self.request, self.now):
            return
        if not is_simulated(self.node_config):
            self._tell(self.site)

    def _tell(self, site: Site) -> None:
        """Say in the node's own log what was asked, what it costs, and what is left."""
        try:
            entry, standing = self.request.entry(self.now), site.standing()
            LOG.info(
                "run %d, round %d: a release of unit %s is asked for and charged, noise multiplier "
                "%.3g, sampled at %.3g; the account: %s",
                *(entry.run, entry.round, entry.unit, entry.noise_multiplier, entry.sample_rate),
                standing.words,
                extra={"figures": {"release": asdict(entry), "account": asdict(standing)}},
            )
        except BaseException as error:  # Nothing that is told decides whether a release leaves.
            pass_on_interrupt(error)
            told, kind = {"code": "counts-lost"}, type(error).__name__
            LOG.error("the account cannot be told: %s", kind, extra=told)

    def count(self, mishaps: Mapping[str, int]) -> None:
        """Keep what went wrong for the site's own people: in the log, and on disk."""
        for cause, times in mishaps.items():
            told = {"code": "contribution-lost"}
            LOG.warning("round %d, %d x %s", self.request.round, times, cause, extra=told)
        try:
            if self.site:
                self.site.mishaps.add(mishaps)
        except BaseException as error:  # A release must leave whatever becomes of this.
            pass_on_interrupt(error)
            told, kind = {"code": "counts-lost"}, type(error).__name__
            LOG.error("what went wrong could not be counted: %s", kind, extra=told)


def source_of(node_config: Mapping[str, Scalar], declared: Declared) -> str:
    """What decides a release on the node's side: its prompts, and the figures that it declares."""
    return json.dumps([prompts_stamp(node_config), asdict(declared)], sort_keys=True)
