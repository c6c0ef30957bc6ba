"""What a number among the settings may be: one table, for what users set and servers send alike.

Adversary: a server, which chooses the settings. A number that is not finite, or so large that a
product of it is not, makes an overflow depend on what it is multiplied by: on a prompt. The bounds
are far beyond what serves any run, and far within what float32 can carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedgrpo.ground.errors import MOVING, SettingsError

Bounds = tuple[float, float]
"""Least and greatest value, both allowed, both finite."""

COUNT, LENGTH, RATE, SECONDS = 10**7, 10**6, 1e3, 1e7
"""Greatest number of things, of tokens, greatest learning rate, greatest time (115 days)."""

TEXT, ITEMS = 10**5, 1000
"""Most characters of a text among the settings, and most items of a list."""

_LEAST = 1e-30
"""For what must be above 0."""

BOUNDS: Mapping[str, Bounds] = {
    "rounds": (1, COUNT),
    "seed": (0, 10**18),
    "adapter.rank": (1, 10**5),
    "adapter.alpha": (1e-6, 1e6),
    "adapter.projection_dim": (1, 10**6),
    "data.prompts_per_client": (1, COUNT),
    "data.min_prompts": (1, COUNT),
    "data.unit_rows": (1, 1024),
    "data.heterogeneity": (1e-6, 1e6),
    "data.max_failing": (0, 1),
    "reward.weights": (-1e6, 1e6),
    "reward.minimum": (-1e9, 1e9),
    "reward.maximum": (-1e9, 1e9),
    "reward.timeout_s": (1e-3, SECONDS),
    "reward.cpu_s": (1, 10**6),
    "grpo.passing_reward": (-1e9, 1e9),
    "grpo.informed_start": (0, 1),
    "grpo.informed_batches": (1, COUNT),
    "grpo.discount": (1e-6, 1),
    "grpo.gae_lambda": (0, 1),
    "grpo.value_learning_rate": (_LEAST, RATE),
    "grpo.value_clip": (1e-9, 1e6),
    "grpo.vine_rollouts": (1, 10**4),
    "grpo.vine_step": (1, LENGTH),
    "grpo.steps": (1, COUNT),
    "grpo.passes": (1, 10**4),
    "grpo.minibatches": (1, 10**4),
    "grpo.prompts_per_step": (1, COUNT),
    "grpo.group_size": (2, 10**4),
    "grpo.gradient_accumulation_steps": (1, 10**4),
    "grpo.learning_rate": (_LEAST, RATE),
    "grpo.warmup_steps": (0, COUNT),
    "grpo.weight_decay": (0, 10),
    "grpo.clip_low": (0, 1e3),
    "grpo.clip_high": (0, 1e3),
    "grpo.kl_weight": (0, 1e3),
    "grpo.entropy_weight": (0, 1e3),
    "grpo.max_resamples": (0, 10**4),
    "grpo.overlong_share": (0, 1),
    "grpo.temperature": (0.01, 100),
    "grpo.top_k": (0, 10**7),
    "grpo.top_p": (1e-6, 1),
    "grpo.min_p": (0, 1),
    "grpo.repetition_penalty": (0.1, 10),
    "grpo.max_prompt_length": (1, LENGTH),
    "grpo.max_completion_length": (1, LENGTH),
    "grpo.tokens_per_batch": (1, 10**9),
    "grpo.memory_gb": (0, 10**5),
    "grpo.max_grad_norm": (1e-9, 1e6),
    "privacy.noise_multiplier": (1e-6, 1e6),
    "privacy.delta": (_LEAST, 0.999),
    "privacy.max_epsilon": (1e-9, 1e9),
    "privacy.clipping_norm": (1e-9, 1e6),
    "privacy.adaptive_min": (1, COUNT),
    "privacy.quantile": (1e-6, 0.999999),
    "privacy.clipping_rate": (1e-9, 10),
    "privacy.metrics_share": (1e-9, 0.9),
    "secure.bucket_size": (3, 10**5),
    "robust.trim": (0, 10**5),
    "robust.momentum": (0, 0.999),
    "server.learning_rate": (_LEAST, RATE),
    "server.final_rate": (0, 1),
    "server.momentum": (0, 0.999999),
    "server.second_momentum": (0, 0.999999),
    "server.epsilon": (_LEAST, 1e3),
    "federation.min_clients": (3, 10**6),
    "federation.cohort": (0, 10**6),
    "federation.wait_s": (1e-3, SECONDS),
    "federation.round_timeout_s": (1e-3, SECONDS),
    "federation.reply_timeout_s": (1e-3, SECONDS),
    "evaluation.prompts": (1, COUNT),
    "evaluation.every": (1, COUNT),
    "evaluation.pass_at": (1, 10**4),
    "simulation.clients": (1, 10**6),
    "simulation.byzantine": (0, 10**6),
    "simulation.boost": (1e-9, 1e9),
    "simulation.droppers": (0, 10**6),
    "simulation.stragglers": (0, 10**6),
    "simulation.dropout": (0, 1),
    "simulation.newcomers": (0, 10**6),
    "simulation.newcomers_from": (1, 10**6),
    "simulation.large": (0, 10**6),
    "simulation.cpus_per_client": (1, 10**4),
    "simulation.gpus_per_client": (0, 10**4),
    "run.started_at": (0, 1e12),
}
"""By ``section.name``; of a list, for each of its numbers."""


def shown(key: str) -> str:
    """Write a setting's bounds for people: ``0.01 to 100``."""
    low, high = BOUNDS[key]
    return f"{_number(low)} to {_number(high)}"


def check_bounds(key: str, value: object) -> None:
    """Hold a setting's number, or the numbers of its list, against the table; and refuse a text
    that moves a terminal's cursor, or turns its direction: policies are read there, and accepted.

    Parameters
    ----------
    key:
        ``section.name``.
    value:
        The setting's. Numbers without bounds are passed over: a site's own policy is made of
        sections too.

    Raises
    ------
    SettingsError
        Names the setting, the number outside its bounds, and the bounds; or the character.
    """
    if moving := next(filter(None, map(MOVING.search, _texts(value))), None):
        raise SettingsError(
            f"{key} has {moving[0]!a} in it, which no text needs", cure=f"write {key} without it"
        )
    for number in _numbers(value) if key in BOUNDS else ():
        if not _within(number, BOUNDS[key]):
            raise out_of_bounds(key, number)


def out_of_bounds(key: str, number: object) -> SettingsError:
    """Say that a setting's number is outside its bounds, and what it may be."""
    return SettingsError(
        f"{key} = {number!r} is not in {shown(key)}",
        cure=f"correct {key}: take a number from {shown(key)}",
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = (*value, *value.values())
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, str):
            yield item


def _numbers(value: object) -> Iterator[float]:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield item


def _within(number: float, bounds: Bounds) -> bool:
    low, high = bounds
    return low <= number <= high  # Neither is true of NaN.


def _number(value: float) -> str:
    """Write 1000000 as it is, and 10**9 and 1e-30 by their powers."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 10**8 else f"{value:g}"
