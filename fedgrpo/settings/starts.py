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
    "adapter": {"kind": "lora", "rank": 8},
    # The gradient itself, which the server's Adam scales.
    "grpo": {"optimiser": "sgd", "learning_rate": 1.0},
    "server": {"learning_rate": 1e-3, "final_rate": 0.5},
}
_HIDDEN: Values = {
    "adapter": {"kind": "tiny_lora", "rank": 2, "projection_dim": 4},
    # By a server that is trusted with it. The norm is small: each prompt says a direction, none
    # more than another; Adam minds no scale.
    "privacy": {"noise": "server", "clipping_norm": 1e-3},
    "aggregation": {"protocol": "plain"},
    "server": {"learning_rate": 0.02, "final_rate": 0.5},
}

STARTS: Mapping[str, Mapping[str, Values]] = {
    "language_model": {"none": _OPEN, "prompt": _HIDDEN},
}
"""By name, and by ``privacy.unit``: a model of 0.1 to 8 B parameters. Measured at 0.135 B."""


def with_start(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the starting point that a scenario names, if it names one, below what it sets.

    Raises
    ------
    SettingsError
        If there is none of this name, or none for the privacy unit.
    """
    left = {key: value for key, value in tree.items() if key != KEY}
    if KEY not in tree:
        return left
    name = tree[KEY]
    if not isinstance(name, str) or name not in STARTS:
        raise SettingsError(
            f"{KEY} = {name!r} is no starting point", cure=f"one of: {', '.join(STARTS)}"
        )
    if (unit := _unit(left)) not in STARTS[name]:
        raise SettingsError(
            f"{KEY} = {name!r} is for privacy.unit {' and '.join(STARTS[name])}, not {unit}",
            cure=f"leave {KEY} out, and set rates and adapter by hand",
        )
    values = STARTS[name][unit]
    return left | {
        section: {**given, **own}
        for section, given in values.items()
        if isinstance(own := left.get(section, {}), Mapping)
    }


def _unit(tree: Mapping[str, Any]) -> str:
    privacy = tree.get("privacy")
    given = privacy.get("unit") if isinstance(privacy, Mapping) else None
    return str(given or PrivacySettings().unit)
