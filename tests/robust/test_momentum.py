"""A client's mean over rounds: its weights, its length, and rounds that are repeated or missed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedgrpo.attacks import Knowledge, apply_attack
from fedgrpo.robust import combine
from fedgrpo.robust.momentum import Carried, carried

Floats = NDArray[np.float64]
UPDATES = arrays(np.float64, (5, 3), elements=st.floats(-1, 1))


def after(updates: Floats, decay: float, rounds: list[int] | None = None) -> Carried:
    kept = None
    for round, update in zip(rounds or range(1, len(updates) + 1), updates, strict=True):
        kept = carried(kept, round, update, decay)
    assert kept is not None
    return kept


@given(UPDATES, st.floats(0, 0.999))
@settings(max_examples=50)
def test_each_update_weighs_decay_times_what_the_next_one_does(
    updates: Floats, decay: float
) -> None:
    weights = decay ** np.arange(len(updates))[::-1]
    expected = weights @ updates / weights.sum()
    np.testing.assert_allclose(after(updates, decay).mean, expected, atol=1e-12)


@given(UPDATES, st.floats(0, 0.999))
@settings(max_examples=50)
def test_it_is_no_longer_than_the_longest_update(updates: Floats, decay: float) -> None:
    longest = np.linalg.norm(updates, axis=1).max()
    assert np.linalg.norm(after(updates, decay).mean) <= longest * (1 + 1e-12)


def test_the_first_update_and_each_without_decay_are_sent_to_the_bit() -> None:
    updates = np.random.default_rng(0).normal(size=(4, 9))
    assert after(updates[:1], 0.9).mean.tobytes() == updates[0].tobytes()
    np.testing.assert_allclose(after(updates, 0.0).mean, updates[-1], rtol=1e-15)


def test_a_repeated_round_takes_its_own_place_to_the_bit() -> None:
    updates = np.random.default_rng(0).normal(size=(4, 9))
    once = after(updates, 0.9)
    again = after(np.concatenate([updates, updates[-1:]]), 0.9, [1, 2, 3, 4, 4])
    assert again.mean.tobytes() == once.mean.tobytes()
    assert after(updates[[0, 0]], 0.9, [1, 1]).mean.tobytes() == updates[0].tobytes()


def test_a_missed_round_changes_no_weight() -> None:
    updates = np.random.default_rng(0).normal(size=(3, 9))
    missed = after(updates, 0.9, [1, 4, 5])
    assert missed.mean.tobytes() == after(updates, 0.9).mean.tobytes()


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_what_clients_differ_by_shrinks_as_the_paper_says(decay: float) -> None:
    """arXiv 2205.12173: by (1 - b) / (1 + b) in squares, once many rounds have passed."""
    updates = np.random.default_rng(0).normal(size=(120, 4000))
    found = float(np.mean(after(updates, decay).mean ** 2))
    assert found == pytest.approx((1 - decay) / (1 + decay), rel=0.1)


@cache
def progress(decay: float, attack: str) -> float:
    """Mean cosine between the rule's result, behind as much momentum of the server where clients
    have none, and the way that all honest updates have in common: a twentieth of their squares, as
    in training of 24 prompts a client. Two of twelve attack.
    """
    rng, clients, size = np.random.default_rng(0), 12, 3000
    common = rng.normal(size=size) / np.sqrt(size)
    kept: list[Carried | None] = [None] * clients
    way, step, first, seen = np.zeros(size), np.zeros(size), np.zeros((2, size)), []
    for round in range(1, 21):
        updates = np.sqrt(0.05) * common + np.sqrt(0.95 / size) * rng.normal(size=(clients, size))
        kept = [carried(k, round, u, decay) for k, u in zip(kept, updates, strict=True)]
        sent = np.stack([k.mean for k in kept if k])
        first = sent[:2] if round == 1 else first
        for own in range(2):
            known = Knowledge(1.0, round, size, sent[:2], sent[2:], first[own], way=way)
            if round > 1:
                sent[own] = apply_attack(attack, sent[own], known)
        result = combine("nnm_trimmed_mean", sent, 2)
        step = result if decay else 0.9 * step + 0.1 * result
        way += step / np.linalg.norm(step)
        seen.append(common @ step / np.linalg.norm(common) / np.linalg.norm(step))
    return float(np.mean(seen[5:]))


@pytest.mark.parametrize(
    ("attack", "lost"),
    [("stale", 0.05), ("min_sum(direction='undo')", 0.1), ("min_sum(direction='fixed')", 0.1)],
)
def test_attacks_that_last_find_less_to_hide_in(attack: str, lost: float) -> None:
    """Half of what they take without, or less: here each takes more than ``lost``."""
    untouched, with_momentum, without = (
        progress(0.9, "stale(share=0.0)"),
        progress(0.9, attack),
        progress(0.0, attack),
    )
    assert without < untouched - lost
    assert untouched - with_momentum < (untouched - without) / 2
