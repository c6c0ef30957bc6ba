"""Whether the parts that settings name for the server can be found and used."""

from __future__ import annotations

from fedgrpo.data.tasks import TASKS
from fedgrpo.federation.server.optimisers import OPTIMISERS
from fedgrpo.ground.errors import SettingsError
from fedgrpo.robust.rules import RULES
from fedgrpo.settings import Settings


def check_parts(settings: Settings) -> None:
    """Load rule, optimiser and tasks, and hold their options against their signatures.

    Raises
    ------
    FedGRPOError
        Names the setting, the part, its option and what there is.
    """
    RULES.check(settings.robust.rule)
    OPTIMISERS.check(settings.server.optimiser)
    if "tasks" in {settings.data.source, settings.evaluation.source or settings.data.source}:
        if not settings.data.tasks:
            raise SettingsError("data.tasks is empty", cure=f"choose from {', '.join(TASKS)}")
        for task in settings.data.tasks:
            TASKS.check(task)
