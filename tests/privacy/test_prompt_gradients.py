"""Per-prompt gradients against one plain backward pass a prompt, for every adapter kind."""

from functools import partial

import numpy as np
import pytest
import torch

from fedgrpo.errors import PrivacyError
from fedgrpo.grpo.experience import Experience
from fedgrpo.grpo.losses import BatchTotals
from fedgrpo.grpo.packing import pack
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.privacy.prompt_gradients import (
    PromptBatch,
    clipped_gradient_sum,
    hookable,
    per_prompt_gradients,
    poisson_sample,
)
from fedgrpo.settings import AdapterSettings
from tests.models import graded, stirred, tiny_trainer

KINDS = ["ffa_lora", "lora", "tiny_lora"]
TOTALS = BatchTotals(4, 32, 8)


def collected(kind: str) -> tuple[GRPOTrainer, Experience]:
    settings = AdapterSettings.model_validate({"kind": kind})
    trainer = tiny_trainer(16, settings, graded)
    stirred(trainer.adapter, 0.01)
    return trainer, trainer.collect(range(16))


def prompt_batches(
    trainer: GRPOTrainer, experience: Experience, tokens: int, row_tokens: int = 2048
) -> list[PromptBatch]:
    def loss(batch: object) -> torch.Tensor:
        return trainer.updater.loss(experience, batch, TOTALS).loss  # type: ignore[arg-type]

    packed = pack(
        experience.rollout,
        experience.useful(with_silent=False),
        tokens_per_batch=tokens,
        max_row_tokens=row_tokens,
    )
    return [PromptBatch(partial(loss, batch), batch.prompt_of_row) for batch in packed]


def one_by_one(trainer: GRPOTrainer, experience: Experience) -> np.ndarray:
    """The oracle: one prompt, one backward pass, nothing of Opacus."""
    parameters = list(trainer.adapter.trainable.values())
    return np.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(batch.loss(), parameters)])
            .double()
            .numpy()
            for batch in prompt_batches(trainer, experience, tokens=1)
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row_tokens", [2048, 1])
def test_clipped_sum_equals_one_backward_pass_a_prompt(kind: str, row_tokens: int) -> None:
    """Also where a prompt's completions are spread over rows: they are summed before clipping."""
    trainer, experience = collected(kind)
    expected = one_by_one(trainer, experience)
    norms = np.linalg.norm(expected, axis=1)
    clip = float(np.median(norms))
    clipped = expected * np.minimum(1, clip / norms)[:, None]
    parameters = list(trainer.adapter.trainable.values())
    tokens = 10**6 if hookable(trainer.adapter.causal, parameters) else 1
    batches = prompt_batches(trainer, experience, tokens, row_tokens)
    total = clipped_gradient_sum(trainer.adapter.causal, parameters, batches, clip)
    assert np.allclose(total.vector, clipped.sum(0), atol=1e-4 * clip)
    assert np.allclose(np.sort(total.norms), np.sort(norms), rtol=1e-4)
    assert len(expected) > 3
    assert (norms > clip).any()


def test_no_prompt_moves_the_sum_by_more_than_the_clipping_norm() -> None:
    trainer, experience = collected("ffa_lora")
    parameters = list(trainer.adapter.trainable.values())
    batches = prompt_batches(trainer, experience, tokens=1)
    clip = 0.05
    whole = clipped_gradient_sum(trainer.adapter.causal, parameters, batches, clip)
    for left_out in range(len(batches)):
        rest = [b for i, b in enumerate(batches) if i != left_out]
        without = clipped_gradient_sum(trainer.adapter.causal, parameters, rest, clip)
        assert np.linalg.norm(whole.vector - without.vector) <= clip * (1 + 1e-9)


def test_hooks_leave_no_trace_on_the_model() -> None:
    trainer, experience = collected("ffa_lora")
    parameters = list(trainer.adapter.trainable.values())
    (batch,) = prompt_batches(trainer, experience, tokens=10**6)
    per_prompt_gradients(trainer.adapter.causal, parameters, batch, batch.prompt_of_row.unique())
    assert not any(hasattr(p, "grad_sample") for p in trainer.adapter.model.parameters())
    assert all(p.grad is None for p in parameters)
    assert not any(m.training for m in trainer.adapter.causal.modules())
    assert trainer.step([0, 1]).applied in (True, False)


def test_prompt_with_a_gradient_that_is_not_finite_contributes_nothing() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[1.0, 0.0], [float("inf"), 0.0], [0.0, 1.0]], requires_grad=True)
    batch = PromptBatch(lambda: model(inputs).sum(), torch.arange(3))
    total = clipped_gradient_sum(model, [model.weight], [batch], 1.0)
    assert total.vector.tolist() == [1.0, 1.0]
    assert total.norms.tolist() == [1.0, 1.0]


def test_several_prompts_without_hooks_are_refused_not_guessed() -> None:
    trainer, experience = collected("tiny_lora")
    parameters = list(trainer.adapter.trainable.values())
    with pytest.raises(PrivacyError, match="one prompt into each batch"):
        clipped_gradient_sum(
            trainer.adapter.causal, parameters, prompt_batches(trainer, experience, 10**6), 1.0
        )


def test_sampling_takes_each_prompt_by_its_own_coin() -> None:
    draws = np.zeros((400, 50))
    for draw in draws:
        draw[poisson_sample(50, 10.0)] = 1
    # Binomial(20000, 0.2): six standard deviations are 0.017.
    assert abs(draws.mean() - 0.2) < 0.017
    # Independent coins: the number drawn varies as a binomial does, it is not fixed.
    assert 0.6 < draws.sum(1).var() / (50 * 0.2 * 0.8) < 1.5
    assert poisson_sample(5, 5.0) == [0, 1, 2, 3, 4]


def test_sampling_cannot_be_repeated_by_seeding() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        draws.append(poisson_sample(1000, 500.0))
    assert draws[0] != draws[1]
