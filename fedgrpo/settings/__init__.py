"""Every setting once: typed, with its unit, default and source.

A scenario file (TOML) and Flower's flat run configuration fill the same tree, :class:`Settings`.
Flower carries only scalars, so lists travel as comma-separated strings and every key is
``section.name``.
"""

from fedgrpo.settings.reading import REMOVED, RENAMED, read_toml
from fedgrpo.settings.sections.aggregation import (
    ServerSettings,
)
from fedgrpo.settings.sections.data import DataSettings, EvaluationSettings, RewardSettings
from fedgrpo.settings.sections.federation import (
    SimulationSettings,
)
from fedgrpo.settings.sections.grpo import FROM_PRESET, GRPOSettings
from fedgrpo.settings.sections.metrics import METRICS, OWN, Metric, figure_name
from fedgrpo.settings.sections.model import AdapterSettings, ModelSettings
from fedgrpo.settings.sections.presets import PRESETS, Preset, register_preset
from fedgrpo.settings.sections.privacy import Metrics, PrivacySettings
from fedgrpo.settings.sections.section import Names, Numbers, Section
from fedgrpo.settings.settings import Scalar, Settings

__all__ = [
    "FROM_PRESET",
    "METRICS",
    "OWN",
    "PRESETS",
    "REMOVED",
    "RENAMED",
    "AdapterSettings",
    "DataSettings",
    "EvaluationSettings",
    "GRPOSettings",
    "Metric",
    "Metrics",
    "ModelSettings",
    "Names",
    "Numbers",
    "Preset",
    "PrivacySettings",
    "RewardSettings",
    "Scalar",
    "Section",
    "ServerSettings",
    "Settings",
    "SimulationSettings",
    "figure_name",
    "read_toml",
    "register_preset",
]
