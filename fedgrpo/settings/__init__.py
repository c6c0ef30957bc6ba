"""Every setting once: typed, with its unit, default and source.

A scenario file (TOML) and Flower's flat run configuration fill the same tree, :class:`Settings`.
Flower carries only scalars, so lists travel as comma-separated strings and every key is
``section.name``.
"""

from fedgrpo.settings.reading import RENAMED, read_toml
from fedgrpo.settings.sections import (
    FROM_PRESET,
    METRICS,
    PRESETS,
    AdapterSettings,
    AggregationSettings,
    DataSettings,
    EvaluationSettings,
    FederationSettings,
    GRPOSettings,
    Metric,
    Metrics,
    ModelSettings,
    Names,
    Numbers,
    Preset,
    PrivacySettings,
    RewardSettings,
    RobustSettings,
    RunSettings,
    Section,
    SecureSettings,
    ServerSettings,
    SimulationSettings,
    register_preset,
)
from fedgrpo.settings.settings import Scalar, Settings

__all__ = [
    "FROM_PRESET",
    "METRICS",
    "PRESETS",
    "RENAMED",
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
    "Scalar",
    "Section",
    "SecureSettings",
    "ServerSettings",
    "Settings",
    "SimulationSettings",
    "read_toml",
    "register_preset",
]
