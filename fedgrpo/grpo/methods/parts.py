"""Whether the parts that settings name for training can be found and used."""

from __future__ import annotations

from fedgrpo.grpo.learning.advantages import ADVANTAGES
from fedgrpo.grpo.learning.losses import LOSSES
from fedgrpo.grpo.methods.credit import CREDITS
from fedgrpo.grpo.methods.guidance import GUIDES
from fedgrpo.grpo.rollout.engines import ENGINES
from fedgrpo.settings import GRPOSettings


def check_parts(grpo: GRPOSettings) -> None:
    """Load advantage, loss, credit, guidance and engine, and hold options against signatures.

    Raises
    ------
    SettingsError
        Names the setting, the part, its option and what there is.
    """
    ADVANTAGES.check(grpo.advantage)
    LOSSES.check(grpo.loss)
    CREDITS.check(grpo.credit)
    GUIDES.check(grpo.guidance)
    ENGINES.check(grpo.engine)
