"""What an attacker finds out in one run, beside what is stated.

Sound noise, and noise of a tenth of what is claimed: 1,000 canaries, 95 % confidence (arXiv
2305.08846). Run it with ``python benchmarks/privacy_audit.py``.
"""

from __future__ import annotations

import time
from unittest import mock

import numpy as np

from fedgrpo.privacy import audit, worst_epsilon
from fedgrpo.privacy.audit import client_canaries, prompt_canaries
from fedgrpo.privacy.release import holder_noise_std, server_noise_std
from fedgrpo.settings import Settings

CANARIES, GUESSES, TRIM = 1000, 500, 2
CASES = [
    ("prompt", "server", 1.0, 20, 20),
    ("prompt", "server", 4.0, 4, 500),
    ("prompt", "client", 4.0, 4, 500),
    ("client", "server", 6.0, 4, 1),
    ("client", "client", 6.0, 4, 1),
]


def settings_of(unit: str, noise: str, multiplier: float, rounds: int, prompts: int) -> Settings:
    return Settings.from_mapping(
        {
            "rounds": rounds,
            "grpo": {"prompts_per_step": prompts},
            "data": {"min_prompts": CANARIES, "prompts_per_holder": CANARIES},
            "privacy": {"unit": unit, "noise": noise, "noise_multiplier": multiplier},
            "aggregation": {"protocol": "plain"},
            "robust": {"trim": TRIM},
            "federation": {"min_holders": 12 if unit == "prompt" else CANARIES + TRIM},
        }
    )


def found(settings: Settings, divided_by: float) -> float:
    canaries = prompt_canaries if settings.privacy.unit == "prompt" else client_canaries
    broken = {
        f.__name__: lambda *a, f=f: f(*a) / divided_by for f in (holder_noise_std, server_noise_std)
    }
    with mock.patch.multiple("fedgrpo.privacy.audit", **broken):
        rng = np.random.default_rng(0)
        run = audit.audit(canaries(settings), CANARIES, GUESSES, delta=1e-5, rng=rng)
    return run.epsilon


def main() -> None:
    print("unit    noise   z    rounds  stated  found  found at a tenth of the noise  seconds")
    for case in CASES:
        settings, begun = settings_of(*case), time.monotonic()
        stated = worst_epsilon(settings, settings.rounds) or 0.0
        figures = [found(settings, factor) for factor in (1.0, 10.0)]
        unit, noise, multiplier, rounds, _ = case
        print(
            f"{unit:7} {noise:7} {multiplier:<4} {rounds:6}  {stated:6.2f}  {figures[0]:5.2f}  "
            f"{figures[1]:29.2f}  {time.monotonic() - begun:7.1f}"
        )


if __name__ == "__main__":
    main()
