"""Starting points: settings that fit a kind of model, by one name at the top of a scenario.

``start = "language_model"`` fills what the scenario does not set; it is used up when the scenario
is read, so that what travels are the settings themselves. What was measured with these values is in
docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings.sections.privacy import PrivacySettings

KEY = "start"
"""The key of a scenario."""

Values = Mapping[str, Mapping[str, str | float | int]]
"""Settings by section."""

_OPEN: Values = {
    "model": {"dtype": "float32"},
    "adapter": {"kind": "lora", "rank": 8},
    "grpo": {"optimiser": "sgd", "learning_rate": 1.0, "max_completion_length": 128},
    "server": {"learning_rate": 1e-3, "final_rate": 0.3},
}
_HIDDEN: Values = {
    "model": {"dtype": "float32"},
    "adapter": {"kind": "tiny_lora", "rank": 2, "projection_dim": 4},
    "grpo": {"max_completion_length": 128},
    "privacy": {"noise": "server"},
    "aggregation": {"protocol": "plain"},
    "server": {"learning_rate": 1e-2},
}

STARTS: Mapping[str, Mapping[str, Values]] = {
    "language_model": {"none": _OPEN, "prompt": _HIDDEN, "client": _HIDDEN},
}
"""By name, and by ``privacy.unit``: models of 0.1 to 8 B parameters."""


def with_start(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the starting point that a scenario names, if it names one, below what it sets.

    Raises
    ------
    SettingsError
        If there is none of this name.
    """
    left = {key: value for key, value in tree.items() if key != KEY}
    if KEY not in tree:
        return left
    name = tree[KEY]
    if not isinstance(name, str) or name not in STARTS:
        raise SettingsError(
            f"{KEY} = {name!r} is no starting point", cure=f"one of: {', '.join(STARTS)}"
        )
    values = STARTS[name].get(_unit(left), {})
    return left | {
        section: {**given, **own}
        for section, given in values.items()
        if isinstance(own := left.get(section, {}), Mapping)
    }


def _unit(tree: Mapping[str, Any]) -> str:
    privacy = tree.get("privacy")
    given = privacy.get("unit") if isinstance(privacy, Mapping) else None
    return str(given or PrivacySettings().unit)
