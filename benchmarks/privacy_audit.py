"""What an attacker finds out in one run, beside what is stated.

Runs of canaries through the production client and server, with sound noise and with a tenth of what
is claimed; 95 % confidence (arXiv 2305.08846). Run it with ``python benchmarks/privacy_audit.py``.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

from fedgrpo.federation.audit.canaries import canary_run, canary_settings
from fedgrpo.federation.audit.examine import examine
from fedgrpo.privacy.audit import audit
from fedgrpo.settings import Settings

CANARIES, CLIENTS = 1000, 200
# Unit, who adds the noise, protocol, noise multiplier, rounds, prompts a round, clients, trim.
CASES = [
    ("prompt", "server", "buckets", 4.0, 4, 500, 3, 0),
    ("prompt", "server", "plain", 4.0, 4, 500, 5, 1),
    ("prompt", "server", "committee", 4.0, 4, 500, 5, 1),
    ("prompt", "client", "buckets", 4.0, 4, 500, 3, 0),
    ("prompt", "client", "plain", 4.0, 4, 500, 3, 0),
    ("client", "server", "plain", 6.0, 4, 1, CLIENTS + 1, 1),
    ("client", "client", "plain", 6.0, 4, 1, CLIENTS, 0),
    ("prompt", "server", "plain", 1.0, 20, 20, 5, 1),
]
NOISE = (
    ("fedgrpo.federation.server.round", "server_noise_std"),
    ("fedgrpo.federation.wire.plans", "client_noise_std"),
    ("fedgrpo.federation.protocols.committee.convening.plan", "noise_steps"),
)
"""Who says how much noise there is."""


def settings_of(case: tuple[Any, ...]) -> Settings:
    unit, noise, protocol, multiplier, rounds, prompts, clients, trim = case
    more: dict[str, Any] = {"rounds": rounds}
    if unit == "prompt":
        more |= {"grpo__prompts_per_step": prompts, "data__min_prompts": CANARIES}
    return canary_settings(unit, noise, protocol, multiplier, clients, trim, **more)


def guessed_at_a_tenth(settings: Settings, canaries: int) -> float:
    with ExitStack() as patches:
        for module, name in NOISE:
            honest = getattr(import_module(module), name)
            tenth = mock.Mock(side_effect=lambda *a, f=honest, **k: f(*a, **k) / 10)
            patches.enter_context(mock.patch(f"{module}.{name}", tenth))
        found = audit(
            lambda planted: canary_run(settings, planted).sum(axis=0),
            canaries,
            canaries // 2,
            delta=settings.privacy.delta,
            rng=np.random.default_rng(0),
        )
    return found.epsilon


def main() -> None:
    print("unit    noise   protocol   z    rounds  stated  found  faults  at a tenth  seconds")
    for case in CASES:
        settings, begun = settings_of(case), time.monotonic()
        canaries = CANARIES if case[0] == "prompt" else CLIENTS
        found = examine(settings, guesses=canaries // 2, rng=np.random.default_rng(0))
        guessed = found.guessed.epsilon if found.guessed else float("nan")
        unit, noise, protocol, multiplier, rounds, *_ = case
        print(
            f"{unit:7} {noise:7} {protocol:10} {multiplier:<4} {rounds:6}  {found.stated:6.2f}  "
            f"{guessed:5.2f}  {len(found.faults):6}  {guessed_at_a_tenth(settings, canaries):10.2f}"
            f"  {time.monotonic() - begun:7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
