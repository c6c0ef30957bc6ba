"""Whether the parts that settings name for the server can be found and used."""

from __future__ import annotations

from functools import partial

from fedgrpo.data.tasks import TASKS
from fedgrpo.federation.server.optimisers import OPTIMISERS
from fedgrpo.ground.errors import SettingsError, all_at_once
from fedgrpo.rewards.loading import load_metric
from fedgrpo.robust.rules import RULES
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of


def check_parts(settings: Settings) -> None:
    """Load rule, optimiser, tasks and metrics of users' own, and hold their options against their
    signatures.

    Raises
    ------
    FedGRPOError
        Names the setting, the part, its option and what there is.
    """
    RULES.check(settings.robust.rule)
    _check_noise_after(settings)
    OPTIMISERS.check(settings.server.optimiser)
    all_at_once(partial(load_metric, name) for name in settings.privacy.own_metrics)
    if "tasks" in {settings.data.source, settings.evaluation.source or settings.data.source}:
        if not settings.data.tasks:
            raise SettingsError("data.tasks is empty", cure=f"choose from {', '.join(TASKS)}")
        for task in settings.data.tasks:
            TASKS.check(task)


def _check_noise_after(settings: Settings) -> None:
    """Refuse noise after a rule of which nobody knows how far one contribution moves it."""
    if settings.privacy.unit == "none" or protocol_of(settings).noise_place(settings) == "client":
        return
    if RULES[rule := settings.robust.rule].trimmed is None:
        raise SettingsError(
            f"robust.rule = {rule!r} cannot go with privacy.noise = {settings.privacy.noise!r}: no "
            "bound is proved for how far one prompt moves its result (it can flip who is whose "
            "neighbour), so noise added after it would protect nobody",
            cure="set privacy.noise = 'client', or robust.rule = 'trimmed_mean', 'median' or "
            "'norm_checked'",
        )
