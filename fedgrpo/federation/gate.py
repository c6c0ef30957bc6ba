"""Where a round meets the policy of the site that it asks: before any prompt is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fedgrpo.data.ownership import prompts_stamp
from fedgrpo.federation.messages import TrainOrder
from fedgrpo.federation.plans import plan_hash
from fedgrpo.policy import Request, Site, site_of
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import Scalar, Settings


@dataclass(frozen=True)
class Gate:
    """A request, and the site that judges it; a node without a policy lets everything pass.

    Attributes
    ----------
    site:
        From the node's own configuration.
    request:
        What the server asks for.
    now:
        Local time.
    """

    site: Site | None
    request: Request
    now: datetime

    @classmethod
    def at(
        cls,
        node_config: Mapping[str, Scalar],
        settings: Settings,
        order: TrainOrder,
        plan: ReleasePlan,
    ) -> Gate:
        """Read the node's policy.

        Raises
        ------
        PolicyError
            If it has one that cannot be read.
        """
        source = prompts_stamp(node_config)
        request = Request(
            settings=settings,
            run=order.header.run_id,
            round=order.header.round,
            clipping_norm=plan.clipping_norm,
            plan=plan_hash(settings, order, plan, source),
        )
        return cls(site_of(node_config), request, datetime.now())

    def check(self) -> None:
        """Refuse what breaks the policy; raises PolicyError."""
        if self.site:
            self.site.check(self.request, self.now)

    def charge(self) -> None:
        """Spend what the release costs, durably, or refuse it; raises PolicyError."""
        if self.site:
            self.site.charge(self.request, self.now)
