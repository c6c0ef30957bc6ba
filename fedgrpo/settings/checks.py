"""Settings that are sound one by one and cannot go together."""

from __future__ import annotations

import re

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.part_names import brings_code, part_name
from fedgrpo.settings.sections.tree import Tree as Settings  # Whole, or on the way to it.

MEMBERS = 4
"""Members of a committee that compute a round, numbered from 0."""
MEMBER_KEYS = "[0-9a-f]{128}"
"""Pattern of a member's two public keys, as ``fedgrpo committee-key`` prints them."""
_MEMBER = re.compile(MEMBER_KEYS + r"(@\S+:\d{1,5})?")


def secret_threshold(bucket_size: int) -> int:
    """Members of a bucket that must survive to unmask its sum: a majority, so that no two answers
    fit.
    """
    return bucket_size // 2 + 1


def required_clients(bucket_size: int, trim: int) -> int:
    """Least cohort for which ``trim`` attackers can be trimmed: 2 trim + 1 buckets of
    ``bucket_size``.
    """
    return bucket_size * (2 * trim + 1)


def group_size(settings: Settings) -> int:
    """Least number of clients in one of the vectors that the robust rule combines."""
    return settings.secure.bucket_size if settings.aggregation.protocol == "buckets" else 1


def noise_by(settings: Settings) -> str:
    """Who adds the noise: ``client``, ``server`` or ``committee``."""
    if settings.aggregation.protocol == "committee":
        return "committee"
    return settings.privacy.noise


def shares_noise(settings: Settings) -> bool:
    """Whether clients' contributions may stand under one and the same noise."""
    return noise_by(settings) != "client" or settings.privacy.honest_peers > 0


def check_together(settings: Settings) -> None:
    """Refuse a combination that cannot work.

    Raises
    ------
    SettingsError
        Names the settings, their values and the cure.
    """
    for check in (
        _check_committee,
        _check_buckets,
        _check_prompt_unit,
        _check_unit_column,
        _check_noise,
        _check_rewards,
        _check_credit,
        _check_simulation,
    ):
        check(settings)


def _impossible(problem: str, cure: str) -> SettingsError:
    return SettingsError(problem, cure=cure)


def _check_buckets(settings: Settings) -> None:
    size, cohort = group_size(settings), settings.federation.min_clients
    trim = 0 if settings.robust.rule == "mean" else settings.robust.trim
    if cohort < (needed := required_clients(size, trim)):
        raise _impossible(
            f"federation.min_clients = {cohort} is too small for robust.trim = {trim} in groups "
            f"of {size}: {needed} clients are needed",
            f"set federation.min_clients >= {needed}, or robust.trim <= "
            f"{max(0, (cohort // size - 1) // 2)}",
        )


def _check_committee(settings: Settings) -> None:
    named = settings.aggregation.committee
    signing = {name[:64] for name in named}
    if named and (
        len(named) < MEMBERS
        or len(signing) != len(named)
        or not all(_MEMBER.fullmatch(name) for name in named)
    ):
        raise _impossible(
            f"aggregation.committee = {', '.join(named)!r} does not name four different members or "
            "more",
            "give KEYS or KEYS@HOST:PORT of each, with the 128 hex digits that 'fedgrpo "
            "committee-key' prints",
        )
    if settings.aggregation.protocol != "committee":
        return
    if settings.privacy.unit != "none" and settings.privacy.noise == "client":
        raise _impossible(
            "privacy.noise = 'client' cannot go with aggregation.protocol = 'committee', whose "
            "members add the noise jointly after trimming",
            "set privacy.noise = 'server'",
        )
    if (rule := settings.robust.rule) not in (rules := ("trimmed_mean", "median", "mean")):
        raise _impossible(
            f"robust.rule = {rule!r} cannot be computed by a committee",
            f"choose from {', '.join(rules)}",
        )
    trim = settings.robust.trim if rule == "trimmed_mean" else 0
    if (cohort := settings.federation.min_clients) < (needed := 2 * trim + 3):
        raise _impossible(
            f"federation.min_clients = {cohort} is too small for robust.trim = {trim} over a "
            f"committee: {needed} clients are needed",
            f"set federation.min_clients >= {needed}, or lower robust.trim",
        )


def _check_prompt_unit(settings: Settings) -> None:
    if settings.privacy.unit != "prompt":
        return
    if settings.grpo.steps != 1:
        raise _impossible(
            f"grpo.steps = {settings.grpo.steps} cannot go with privacy.unit = 'prompt', which "
            "sends one clipped and noised gradient a round",
            "set grpo.steps = 1 and raise grpo.prompts_per_step or rounds instead",
        )
    if settings.grpo.passes * settings.grpo.minibatches != 1:
        raise _impossible(
            f"grpo.passes = {settings.grpo.passes} and grpo.minibatches = "
            f"{settings.grpo.minibatches} cannot go with privacy.unit = 'prompt', which uses each "
            "completion for one gradient",
            "set both to 1",
        )
    if settings.privacy.adaptive and settings.privacy.quantile != 0.5:
        raise _impossible(
            f"privacy.quantile = {settings.privacy.quantile} cannot go with privacy.unit = "
            "'prompt': how many prompts were sampled is secret, and only a half of them reads the "
            "same without that number",
            "set privacy.quantile = 0.5",
        )
    if settings.grpo.max_resamples:
        raise _impossible(
            f"grpo.max_resamples = {settings.grpo.max_resamples} cannot go with privacy.unit = "
            "'prompt', which samples prompts by independent coins, not by their rewards",
            "set grpo.max_resamples = 0",
        )
    if settings.grpo.prompts_per_step > settings.data.min_prompts:
        raise _impossible(
            f"grpo.prompts_per_step = {settings.grpo.prompts_per_step} is more than "
            f"data.min_prompts = {settings.data.min_prompts}",
            "lower the first or raise the second",
        )


def _check_unit_column(settings: Settings) -> None:
    data = settings.data
    if settings.privacy.unit == "prompt" or (not data.unit and data.unit_rows == 1):
        return
    raise _impossible(
        f"data.unit = {data.unit!r} and data.unit_rows = {data.unit_rows} cannot go with "
        f"privacy.unit = {settings.privacy.unit!r}: they say which rows are hidden together",
        "set privacy.unit = 'prompt', or leave both out",
    )


def _check_noise(settings: Settings) -> None:
    privacy, size = settings.privacy, group_size(settings)
    honest = secret_threshold(size) - 1
    if privacy.unit != "none" and privacy.honest_peers > honest:
        raise _impossible(
            f"privacy.honest_peers = {privacy.honest_peers} is more than the {honest} peers that "
            f"are sure to survive in a group of {size}",
            f"set it to at most {honest}, or raise secure.bucket_size (there are no peers where "
            "aggregation.protocol is not 'buckets')",
        )


def _check_credit(settings: Settings) -> None:
    grpo = settings.grpo
    paired = (grpo.guidance == "critique") == (part_name(grpo.loss) == "critique_grpo")
    # What a user's own guide or loss goes with, its author knows.
    if not (paired or brings_code(grpo.guidance) or brings_code(grpo.loss)):
        raise _impossible(
            f"grpo.guidance = {grpo.guidance!r} cannot go with grpo.loss = {grpo.loss!r}: "
            "refinements and the loss that tells them apart need each other",
            "set grpo.preset = 'critique_grpo', or neither",
        )
    if grpo.credit != "group" and grpo.max_resamples:
        raise _impossible(
            f"grpo.max_resamples = {grpo.max_resamples} cannot go with grpo.credit = "
            f"{grpo.credit!r}, which learns from groups that agree, too",
            "set grpo.max_resamples = 0",
        )


def _check_rewards(settings: Settings) -> None:
    reward = settings.reward
    functions, weights = len(reward.functions), len(reward.weights)
    if not functions:
        raise _impossible("reward.functions is empty", "name one, for example 'exact_match'")
    if len(set(reward.functions)) != functions:
        raise _impossible("reward.functions names one twice", "name it once, weighted")
    if weights not in (0, functions):
        raise _impossible(
            f"reward.weights has {weights} numbers for {functions} functions", "give one each"
        )
    if not reward.minimum < reward.maximum:
        raise _impossible(
            f"reward.minimum = {reward.minimum} is not below reward.maximum = {reward.maximum}",
            "give the range of the weighted reward",
        )


def _check_simulation(settings: Settings) -> None:
    sim = settings.simulation
    if sim.byzantine + sim.droppers > sim.clients:
        raise _impossible(
            f"simulation.byzantine + simulation.droppers = {sim.byzantine + sim.droppers} is more "
            f"than simulation.clients = {sim.clients}",
            "lower the faults or add clients",
        )
