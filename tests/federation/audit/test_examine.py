"""The audit finds nothing in what is sound, and notices each way in which privacy could end.

Runs go through the production client and server; only the model is missing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fedgrpo.ground.crypto
from fedgrpo.federation.audit.canaries import canary_run, canary_settings
from fedgrpo.federation.audit.examine import Examination, examine
from fedgrpo.federation.node.clients import prompt_client, unit_rows
from fedgrpo.federation.protocols import base, means
from fedgrpo.federation.protocols.committee.convening import plan as committee_plan
from fedgrpo.federation.state import node_store
from fedgrpo.privacy import grid, worst_epsilon
from fedgrpo.privacy.audit import audit
from fedgrpo.settings import Settings

pytestmark = pytest.mark.slow

release = sys.modules["fedgrpo.privacy.release"]
CANARIES = 200
CLIENTS = 40

# Unit, who adds the noise, protocol, noise multiplier, clients, trimmed at either end.
Case = tuple[str, str, str, float, int, int]
CASES: dict[str, Case] = {
    "prompts, each client's noise, buckets": ("prompt", "client", "buckets", 4.0, 3, 0),
    "prompts, each client's noise, plain": ("prompt", "client", "plain", 4.0, 3, 0),
    "prompts, server's noise, buckets": ("prompt", "server", "buckets", 4.0, 3, 0),
    "prompts, server's noise, plain": ("prompt", "server", "plain", 4.0, 5, 1),
    "prompts, committee": ("prompt", "server", "committee", 4.0, 5, 1),
    "clients, each client's noise, plain": ("client", "client", "plain", 6.0, CLIENTS, 0),
    "clients, server's noise, plain": ("client", "server", "plain", 6.0, CLIENTS + 1, 1),
}


def make(case: Case, canaries: int = CANARIES) -> Settings:
    more: dict[str, Any] = {
        "rounds": 3,
        "federation__round_timeout_s": 0.5,
        "federation__reply_timeout_s": 0.5,
    }
    if case[0] == "prompt":
        more |= {"grpo__prompts_per_step": canaries // 2, "data__min_prompts": canaries}
    return canary_settings(*case, **more)


def examined(name: str) -> Examination:
    guesses = CLIENTS // 2 if name.startswith("clients") else CANARIES // 2
    rng = np.random.default_rng(0)
    return examine(make(CASES[name]), guesses=guesses, rng=rng, confidence=0.99)


@pytest.mark.parametrize("name", CASES)
def test_a_sound_run_passes(name: str) -> None:
    found = examined(name)
    assert found.faults == ()
    assert found.sound


# Breakages. Each takes pytest's monkeypatch.

Break = Callable[[pytest.MonkeyPatch], None]


def no_noise_by_the_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(means, "add_noise", lambda vector, std, key=None: vector)


def a_tenth_of_the_servers_noise(patch: pytest.MonkeyPatch) -> None:
    honest = means.server_noise_std
    patch.setattr(means, "server_noise_std", lambda *a, **k: honest(*a, **k) / 10)


def no_noise_by_the_client(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(release, "add_noise", lambda vector, std, key=None: vector)


def noise_for_the_mean(patch: pytest.MonkeyPatch) -> None:
    """The mistake that libraries make: z C / n where z C / (n - 2k) is needed."""
    patch.setattr(means, "sensitivity", lambda rule, groups, trim, size: 1 / groups)


def unclipped_unit(direction: Any, metrics: Any, clipping_norm: float) -> grid.GridSum:
    steps = np.trunc(direction / clipping_norm * 2.0**grid.GRID_BITS).astype(np.int64)
    return grid.GridSum(steps, np.zeros(metrics.size, np.int64), 0, 1)


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(grid.GridSum, "of_unit", unclipped_unit)


def no_clipping_of_clients(patch: pytest.MonkeyPatch) -> None:
    honest = release.clip
    patch.setattr(release, "clip", lambda vector, norm: honest(vector, 1e9))


def everybody_sampled(patch: pytest.MonkeyPatch) -> None:
    def everybody(names: Sequence[str], rate: float, key: bytes) -> list[str]:
        return list(names)

    patch.setattr(unit_rows, "sampled_units", everybody)


def one_key_for_all_rounds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(node_store.NodeStore, "key", lambda self, ask: b"0" * 32)


def one_key_for(purpose: str, module: Any) -> Break:
    honest = fedgrpo.ground.crypto.derive_key

    def derive(key: bytes, use: str, *context: str | int) -> bytes:
        return honest(b"0" * 32, use) if use == purpose else honest(key, use, *context)

    return lambda patch: patch.setattr(module, "derive_key", derive)


def eight_steps_by_the_committee(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(committee_plan, "noise_steps", lambda *_: 8.0)


OWN = "prompts, each client's noise, plain"
SUMMED = "prompts, each client's noise, buckets"
TRUSTED = "prompts, server's noise, plain"
BROKEN: list[tuple[str, Break, str]] = [
    (TRUSTED, no_noise_by_the_server, "0.000 times the claimed"),
    ("prompts, server's noise, buckets", no_noise_by_the_server, "0.000 times the claimed"),
    ("clients, server's noise, plain", no_noise_by_the_server, "0.000 times the claimed"),
    (TRUSTED, a_tenth_of_the_servers_noise, "has 0.(09|10). times the claimed"),
    (TRUSTED, noise_for_the_mean, "has 0.(5[5-9]|6[0-5]). times the claimed"),
    (TRUSTED, one_key_for("server noise", base), "rounds 1 and 2 has correlation 1.00"),
    (SUMMED, no_noise_by_the_client, "0.000 times the claimed"),
    ("clients, each client's noise, plain", no_noise_by_the_client, "0.000 times the claimed"),
    (OWN, no_clipping, "contributed 3.... times what it may"),
    (SUMMED, no_clipping, "contributed 3.... times what it may"),
    # Beyond twice what it may be, a release is cut off by its encoding.
    ("clients, server's noise, plain", no_clipping_of_clients, "contributed 2.... times"),
    # As many as a client's time is sized for.
    (OWN, everybody_sampled, "a rate of 0.7.. instead of 0.500"),
    (TRUSTED, everybody_sampled, "a rate of 0.7.. instead of 0.500"),
    (OWN, one_key_for_all_rounds, "rounds 1 and 2 has correlation 1.00"),
    (OWN, one_key_for("noise", prompt_client), "rounds 1 and 2 has correlation 1.00"),
    (OWN, one_key_for("units", unit_rows), "rounds 1 and 2 agree in 200 of 200 units"),
    (TRUSTED, one_key_for_all_rounds, "rounds 1 and 2 agree in 200 of 200 units"),
    ("prompts, committee", eight_steps_by_the_committee, "times the claimed"),
]


@pytest.mark.parametrize(("name", "broken", "fault"), BROKEN)
def test_what_ends_privacy_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Break, fault: str
) -> None:
    broken(monkeypatch)
    found = examined(name)
    assert not found.sound
    assert found.guessed is None
    assert any(re.search(fault, one) for one in found.faults), found.faults


def test_the_attackers_figure_alone_refutes_a_tenth_of_the_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_tenth_of_the_servers_noise(monkeypatch)
    settings = make(CASES[TRUSTED])
    found = audit(
        lambda planted: canary_run(settings, planted).sum(axis=0),
        CANARIES,
        CANARIES // 2,
        delta=1e-5,
        rng=np.random.default_rng(0),
        confidence=0.99,
    )
    stated = worst_epsilon(settings, settings.rounds)
    assert stated is not None
    assert found.epsilon > stated


def test_the_audit_sees_what_there_is_to_see() -> None:
    """Clipping to zero, a wrong sign or a colluder that hides the canaries would blind it."""
    unit, noise, protocol, _, clients, trim = CASES[TRUSTED]
    settings = make((unit, noise, protocol, 0.05, clients, trim))
    planted = np.arange(CANARIES) % 2 == 0
    sizes = canary_run(settings, planted)
    assert np.abs(sizes[:, ~planted]).max() < 0.5
    seen = sizes[:, planted]
    assert np.abs(seen[seen > 0.5] - 1).max() < 0.5
    assert 0.4 < (seen > 0.5).mean() < 0.6
