"""What can be known of a run before it starts, whoever its clients are."""

from __future__ import annotations

from collections.abc import Callable

from fedgrpo.ground.errors import RewardError
from fedgrpo.report.trackers import check_trackers
from fedgrpo.settings import Settings

Check = Callable[[Settings], object]
"""Raises a FedGRPOError, with the setting and the cure, of what cannot work."""


def server_checks() -> tuple[Check, ...]:
    """Checks that every run has to pass, simulated or deployed."""
    return (_check_trackers, check_names, _check_model, _check_budget)


def check_measuring(settings: Settings) -> None:
    """Load what the server itself measures by, and hold it against the held-out prompts.

    Raises
    ------
    DataError, RewardError
        Of what lies on other machines only, with what to set then.
    """
    from fedgrpo.data.ownership import evaluation_prompts
    from fedgrpo.data.prompts import collate_columns
    from fedgrpo.rewards.apart.mixture import guarded_mixture
    from fedgrpo.rewards.composite import check_columns

    rows = evaluation_prompts(settings)
    try:
        check_columns(guarded_mixture(settings.reward, evaluation=True), collate_columns(rows))
    except RewardError as error:
        raise RewardError(
            f"the server cannot measure held-out prompts: {error.problem}",
            cure=f"{error.cure}; or, if this reward lies at the sites only, name what the server "
            "is to measure by: reward.evaluation",
        ) from error


def check_names(settings: Settings) -> None:
    """Find and hold against each other the parts that settings name."""
    from fedgrpo.federation.server.parts import check_parts as check_server_parts
    from fedgrpo.grpo.learning.isolation import require_isolation
    from fedgrpo.grpo.methods.parts import check_parts

    check_parts(settings.grpo)
    if settings.privacy.unit == "prompt":
        require_isolation(settings.grpo)
    check_server_parts(settings)


def _check_trackers(settings: Settings) -> None:
    check_trackers(settings.run.report_to)


def _check_model(settings: Settings) -> None:
    from fedgrpo.model.base import model_source

    model_source(settings.model.name)


def _check_budget(settings: Settings) -> None:
    from fedgrpo.privacy.accounting.guarantees import check_budget

    check_budget(settings)
