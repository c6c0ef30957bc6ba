"""All sections side by side, each sound by itself."""

from __future__ import annotations

from fedgrpo.settings.sections.aggregation import (
    AggregationSettings,
    RobustSettings,
    SecureSettings,
    ServerSettings,
)
from fedgrpo.settings.sections.data import DataSettings, EvaluationSettings, RewardSettings
from fedgrpo.settings.sections.federation import (
    FederationSettings,
    RunSettings,
    SimulationSettings,
)
from fedgrpo.settings.sections.grpo import GRPOSettings
from fedgrpo.settings.sections.model import AdapterSettings, ModelSettings
from fedgrpo.settings.sections.privacy import PrivacySettings
from fedgrpo.settings.sections.section import Section


class Tree(Section):
    """Every setting, before anything is said of those that cannot go together."""

    rounds: int = 24
    """Federated rounds."""
    seed: int = 0
    """Seed of everything that may be public: tasks, splits, evaluation, initial adapter. Never of
    noise or masks.
    """
    model: ModelSettings = ModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    data: DataSettings = DataSettings()
    reward: RewardSettings = RewardSettings()
    grpo: GRPOSettings = GRPOSettings()
    privacy: PrivacySettings = PrivacySettings()
    aggregation: AggregationSettings = AggregationSettings()
    secure: SecureSettings = SecureSettings()
    robust: RobustSettings = RobustSettings()
    server: ServerSettings = ServerSettings()
    federation: FederationSettings = FederationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    simulation: SimulationSettings = SimulationSettings()
    run: RunSettings = RunSettings()

    @classmethod
    def prefix(cls) -> str:
        """Return what its own keys begin with: nothing."""
        return ""
