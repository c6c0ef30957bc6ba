"""Gradients of rows against one plain backward pass a row."""

import pytest
import torch

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.model.family.row_gradients import hookable, row_gradients
from fedgrpo.model.kernels.low_rank import ROW_GRADIENTS
from fedgrpo.settings import AdapterSettings
from tests.grpo.isolated.engines import engine, learned
from tests.models import stirred, tiny_trainer


@pytest.mark.slow
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
