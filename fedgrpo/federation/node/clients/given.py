"""Where a client's prompts and reward come from: settings and node, or the Python code around."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.ownership import usable_node_prompts
from fedgrpo.data.prompts import PromptRow
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.declared import Declared

if TYPE_CHECKING:
    # Rewards load slowly, and most messages judge nothing.
    from fedgrpo.rewards.composite import RewardMixture
    from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, WorkerLimits

Mixture = TypeVar("Mixture", bound="RewardMixture")


@dataclass(frozen=True, eq=False)
class Given:
    """Takes the place of what settings and node configuration name. Two are never equal, as rewards
    cannot be compared.

    Attributes
    ----------
    rows:
        Each simulated client's own prompts; None reads them as the node's configuration says.
    reward:
        Judges in this process; None loads the functions that the settings name. Under prompt-level
        privacy it judges one prompt's group a call, and is trusted to keep nothing between calls:
        what it does keep is outside the proof. Metrics of users' own are measured in this process
        too, then.
    """

    rows: tuple[tuple[PromptRow, ...], ...] | None = None
    reward: RewardMixture | None = None

    def prompts(
        self, settings: Settings, node_config: Mapping[str, Scalar], limit: RowLimit
    ) -> tuple[Sequence[PromptRow], int]:
        """See :func:`fedgrpo.data.ownership.usable_node_prompts`."""
        if self.rows is None:
            return usable_node_prompts(settings, node_config, limit)
        return self.rows[int(node_config["partition-id"])], 0

    def digest(self, partition: int) -> str:
        """Tell a client's given prompts from others: SHA-256 (hex), kept on its own node."""
        rows = self.rows[partition] if self.rows else ()
        content = [[row.for_model(), sorted(row.columns.items())] for row in rows]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def mixture(self, settings: Settings) -> RewardMixture:
        """What judges a client's completions together."""
        from fedgrpo.rewards.apart.mixture import guarded_mixture

        if self.reward:
            return self._measuring(self.reward, settings)
        return guarded_mixture(settings.reward, settings.privacy.own_metrics)

    def isolated(
        self, settings: Settings, declared: Declared, limits: WorkerLimits
    ) -> IsolatedMixture:
        """What judges one prompt's group at a time."""
        from fedgrpo.federation.node.clients.prompt_client import judge_tokens
        from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, isolated_mixture

        if self.reward:
            return self._measuring(IsolatedMixture(self.reward.functions, None), settings)
        return isolated_mixture(
            settings.reward,
            settings.privacy.own_metrics,
            stateless=declared.stateless_rewards,
            limits=limits,
            most_tokens=judge_tokens(settings, declared),
        )

    @staticmethod
    def _measuring(mixture: Mixture, settings: Settings) -> Mixture:
        from fedgrpo.rewards.loading import load_metrics

        return mixture.measuring(load_metrics(settings.privacy.own_metrics))


GIVEN_NOTHING = Given()
"""Everything as settings and node say: one object, so that clients of a process are found again."""
