"""Sections of the settings: what each key means, its type and default, one file a subject."""

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
from fedgrpo.settings.sections.grpo import FROM_PRESET, GRPOSettings
from fedgrpo.settings.sections.metrics import METRICS, Metric
from fedgrpo.settings.sections.model import AdapterSettings, ModelSettings
from fedgrpo.settings.sections.presets import PRESETS, Preset, register_preset
from fedgrpo.settings.sections.privacy import Metrics, PrivacySettings
from fedgrpo.settings.sections.section import Names, Numbers, Section
from fedgrpo.settings.sections.tree import Tree

__all__ = [
    "FROM_PRESET",
    "METRICS",
    "PRESETS",
    "AdapterSettings",
    "AggregationSettings",
    "DataSettings",
    "EvaluationSettings",
    "FederationSettings",
    "GRPOSettings",
    "Metric",
    "Metrics",
    "ModelSettings",
    "Names",
    "Numbers",
    "Preset",
    "PrivacySettings",
    "RewardSettings",
    "RobustSettings",
    "RunSettings",
    "Section",
    "SecureSettings",
    "ServerSettings",
    "SimulationSettings",
    "Tree",
    "register_preset",
]
