"""Gradients of rows against one plain backward pass a row, and which units are sampled."""

import hashlib

import numpy as np
import pytest
import torch

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.model.kernels.low_rank import ROW_GRADIENTS
from fedgrpo.privacy.prompt_gradients import (
    hookable,
    row_gradients,
    sampled_units,
)
from fedgrpo.settings import AdapterSettings
from tests.grpo.isolated.engines import engine, learned
from tests.models import stirred, tiny_trainer

KEY = bytes(range(32))


def names(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


@pytest.mark.parametrize("kind", ["ffa_lora", "lora", "tiny_lora"])
def test_a_rows_gradient_equals_that_of_a_plain_backward_pass(kind: str) -> None:
    which = engine(kind)
    _, lessons = learned(which, range(12))
    taught = [lesson for lesson in lessons.values() if lesson.gradient is not None]
    assert len(taught) > 5
    updater = tiny_trainer().updater
    updater.policy, updater.settings = which.policy, which.settings
    for lesson in taught:
        experience = lesson.judged.experience
        totals = updater.totals(experience)
        totals = type(totals)(4, 24, 6)
        (batch,) = updater.batches(experience)
        loss = updater.loss(experience, batch, totals).loss
        plain = torch.autograd.grad(loss, list(which.policy.adapter.trainable.values()))
        expected = torch.cat([g.flatten() for g in plain]).double()
        error = (lesson.gradient - expected).norm() / expected.norm()
        assert error < 1e-4


def test_gradients_by_row_leave_no_trace_on_the_model() -> None:
    which = engine()
    learned(which, range(6))
    parameters = which.policy.adapter.trainable.values()
    assert not any(hasattr(p, ROW_GRADIENTS) for p in parameters)
    assert all(p.grad is None for p in parameters)
    assert not any(m.training for m in which.policy.adapter.causal.modules())
    assert not any(m._forward_hooks for m in which.policy.adapter.causal.modules())


def test_a_row_that_is_not_finite_stays_by_itself() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[[1.0, 0.0]], [[float("inf"), 0.0]], [[0.0, 1.0]]], requires_grad=True)
    rows = row_gradients(model, [model.weight], lambda: model(inputs).sum(), 3)
    assert rows[[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert not rows[1].isfinite().all()


def test_several_rows_without_hooks_are_refused_not_guessed() -> None:
    trainer = tiny_trainer(4, AdapterSettings(kind="tiny_lora"))
    adapter = stirred(trainer.adapter)
    parameters = list(adapter.trainable.values())
    assert not hookable(adapter.causal, parameters)
    with pytest.raises(PrivacyError, match="one prompt into each batch"):
        row_gradients(adapter.causal, parameters, lambda: torch.zeros(()), 2)


def test_a_unit_is_sampled_by_its_own_coin_and_ordered_by_its_own_key() -> None:
    """Taking a unit out moves no other: neither whether it is sampled nor its place."""
    everyone = names(400)
    chosen = sampled_units(everyone, 0.3, KEY)
    assert 80 < len(chosen) < 160
    for gone in (chosen[0], chosen[-1], everyone[7]):
        rest = sampled_units([name for name in everyone if name != gone], 0.3, KEY)
        assert rest == [name for name in chosen if name != gone]
    assert sampled_units(everyone[::-1], 0.3, KEY) == chosen
    assert sorted(sampled_units(everyone, 1.0, KEY)) == sorted(everyone)
    assert sampled_units([], 0.5, KEY) == []


def test_coins_and_places_are_independent_of_each_other_and_across_keys() -> None:
    everyone = names(4000)
    first, second = (set(sampled_units(everyone, 0.5, bytes([i]) * 32)) for i in range(2))
    # Binomial(4000, 1/4): six standard deviations are 165.
    assert abs(len(first & second) - 1000) < 165
    order = sampled_units(everyone, 1.0, KEY)
    places = {name: place for place, name in enumerate(order)}
    taken = [places[name] for name in sampled_units(everyone, 0.5, KEY)]
    assert abs(np.mean(taken) - 2000) < 6 * 4000 / np.sqrt(12 * len(taken))


def test_the_number_of_sampled_units_varies_as_a_binomial_does() -> None:
    everyone = names(50)
    counts = [
        len(sampled_units(everyone, 0.2, bytes([i % 256, i // 256]) * 16)) for i in range(400)
    ]
    # Binomial(20000, 0.2): six standard deviations are 0.017.
    assert abs(np.mean(counts) / 50 - 0.2) < 0.017
    assert 0.6 < np.var(counts) / (50 * 0.2 * 0.8) < 1.5
