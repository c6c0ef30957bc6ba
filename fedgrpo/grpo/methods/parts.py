"""Whether the parts that settings name for training can be found and used."""

from __future__ import annotations

from fedgrpo.grpo.learning.advantages import ADVANTAGES
from fedgrpo.grpo.learning.losses import LOSSES
from fedgrpo.grpo.methods.credit import CREDITS
from fedgrpo.grpo.methods.guidance import GUIDES
from fedgrpo.settings import GRPOSettings


def check_parts(grpo: GRPOSettings) -> None:
    """Load advantage, loss, credit and guidance, and hold their options against their signatures.

    Raises
    ------
    SettingsError
        Names the setting, the part, its option and what there is.
    """
    ADVANTAGES.check(grpo.advantage)
    LOSSES.check(grpo.loss)
    CREDITS.check(grpo.credit)
    GUIDES.check(grpo.guidance)
