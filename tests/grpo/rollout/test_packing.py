import pytest
import torch

from fedgrpo.grpo.rollout import scoring
from fedgrpo.grpo.rollout.packing import pack
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan, sample
from fedgrpo.grpo.rollout.scoring import completion_logps
from tests.models import random_llama

PROMPTS = [[5, 6, 7], [9, 4, 4, 8, 2, 11], [3], [12, 13, 14, 15]]
WIDTH = 9


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    plan = SamplingPlan(
        group_size=5, max_tokens=WIDTH, temperature=1.0, eos_ids=(1, 7, 9), pad_id=0
    )
    return sample(random_llama(), PROMPTS, plan, torch.Generator().manual_seed(0))


def scored(rollout: Rollout, keep: list[int], **sizes: int) -> torch.Tensor:
    """Log-probabilities of the kept completions in their own order, through packing."""
    result = torch.full((len(rollout.tokens), WIDTH), float("nan"))
    for batch in pack(rollout, keep, **{"tokens_per_batch": 10**6, **sizes}):
        result[batch.completions] = completion_logps(random_llama(), batch, WIDTH, 1.0).detach()
    return result[keep]


@pytest.mark.parametrize("row_tokens", [1, 20, 2048])
@pytest.mark.parametrize("batch_tokens", [1, 64, 10**6])
def test_packed_equals_the_sampler_however_it_is_split(
    rollout: Rollout, row_tokens: int, batch_tokens: int
) -> None:
    keep = list(range(len(rollout.tokens)))
    logps = scored(rollout, keep, max_row_tokens=row_tokens, tokens_per_batch=batch_tokens)
    assert torch.allclose(logps * rollout.mask, rollout.logps, atol=1e-5)


def test_leaving_completions_out_changes_the_others_by_nothing(rollout: Rollout) -> None:
    keep = [0, 3, 4, 7, 11, 12, 19]
    assert torch.allclose(scored(rollout, keep), rollout.logps[keep], atol=1e-5)


def test_all_rows_of_a_prompt_are_in_one_batch(rollout: Rollout) -> None:
    keep = list(range(len(rollout.tokens)))
    batches = list(pack(rollout, keep, tokens_per_batch=40, max_row_tokens=12))
    prompts = [prompt for batch in batches for prompt in batch.prompt_of_row.unique().tolist()]
    assert sorted(prompts) == [0, 1, 2, 3]
    assert sum(len(batch.completions) for batch in batches) == len(keep)


def test_gradients_equal_the_padded_ones(rollout: Rollout) -> None:
    keep = list(range(len(rollout.tokens)))
    weight = random_llama().model.layers[0].mlp.down_proj.weight
    weight.requires_grad_(True)
    try:
        gradients = []
        for row_tokens in (1, 2048):
            (batch,) = pack(rollout, keep, tokens_per_batch=10**6, max_row_tokens=row_tokens)
            logps = completion_logps(random_llama(), batch, WIDTH, 1.0)
            coefficients = (batch.completions + 1).float()[:, None]
            (gradient,) = torch.autograd.grad((logps * coefficients).sum(), weight)
            gradients.append(gradient)
        assert torch.allclose(*gradients, atol=1e-3 * float(gradients[0].abs().max()))
    finally:
        weight.requires_grad_(False)


def test_output_layer_in_chunks_equals_at_once(
    rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = list(range(len(rollout.tokens)))
    whole = scored(rollout, keep)
    monkeypatch.setattr(scoring, "LOGITS_BUDGET", 48 * 3)
    assert torch.allclose(scored(rollout, keep), whole, atol=1e-6)
