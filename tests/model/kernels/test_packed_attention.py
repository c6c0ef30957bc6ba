import copy

import pytest
import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM, PreTrainedModel

from fedgrpo.grpo.rollout.packing import PackedBatch, pack
from fedgrpo.grpo.rollout.sampling import SamplingPlan, sample
from fedgrpo.grpo.rollout.scoring import completion_logps
from fedgrpo.model.kernels import packed_attention
from fedgrpo.model.kernels.attention import PACKED, RoomyLayer, repeat_cache, takes_any_mask
from fedgrpo.model.kernels.packed_attention import use_packed_attention
from tests.models import random_llama, tiny_base

PROMPTS = [[5, 6, 7], [9, 4, 4, 8, 2, 11], [3], [12, 13, 14, 15]]
PLAN = SamplingPlan(group_size=5, max_tokens=9, temperature=1.0, eos_ids=(1, 7, 9), pad_id=0)


def by_mask(model: PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    """Log-probabilities, shape (N, T), by a dense mask."""
    states = model.model(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask(model.dtype),
        position_ids=batch.positions,
    ).last_hidden_state[batch.row, batch.column]
    logps = model.lm_head(states).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    placed = logps.new_zeros(len(batch.completions), PLAN.max_tokens)
    return placed.index_put((batch.token_completion, batch.token_index), logps)


def by_blocks(model: PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    return completion_logps(model, batch, PLAN.max_tokens, 1.0)


def sliding_mistral() -> PreTrainedModel:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    return MistralForCausalLM(config).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("row_tokens", [1, 20, 2048])
@pytest.mark.parametrize("listened", [False, True], ids=["without filler", "rows kept apart"])
@pytest.mark.parametrize("budget", [1, 2**20])
def test_blocks_give_the_dense_masks_values_and_gradients(
    row_tokens: int, listened: bool, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "SCORES_BUDGET", budget)
    dense, blocks = copy.deepcopy(random_llama()), copy.deepcopy(random_llama())
    dense.set_attn_implementation("sdpa")
    assert (dense.config._attn_implementation, blocks.config._attn_implementation) == (
        "sdpa",
        PACKED,
    )
    rollout = sample(dense, PROMPTS, PLAN, torch.Generator().manual_seed(0))
    keep = [0, 1, 3, 5, 6, 7, 8, 9, 12, 19]
    (batch,) = pack(rollout, keep, tokens_per_batch=10**6, max_row_tokens=row_tokens)
    if listened:
        blocks.model.layers[0].register_forward_hook(lambda *_: None)
    results = []
    for model, scored in ((dense, by_mask), (blocks, by_blocks)):
        weight = model.model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
        logps = scored(model, batch)
        coefficients = (batch.completions + 1).float()[:, None]
        (gradient,) = torch.autograd.grad((logps * coefficients).sum(), weight)
        results.append((logps, gradient))
    (expected, expected_gradient), (logps, gradient) = results
    assert torch.allclose(logps, expected, atol=1e-5)
    scale = float(expected_gradient.abs().max())
    assert torch.allclose(gradient, expected_gradient, atol=1e-4 * scale)


def test_the_shipped_base_attends_in_blocks_and_generates_as_ever() -> None:
    model = tiny_base().model
    assert model.config._attn_implementation == PACKED
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    here = model(ids).logits
    model.set_attn_implementation("sdpa")
    assert torch.equal(here, model(ids).logits)


def test_sliding_windows_keep_their_own_attention_and_one_completion_a_row() -> None:
    """A 4-D mask would let them look beyond their window."""
    model = sliding_mistral()
    use_packed_attention(model)
    assert model.config._attn_implementation == "sdpa"
    assert not takes_any_mask(model)
    rollout = sample(model, PROMPTS, PLAN, torch.Generator().manual_seed(0))
    keep = list(range(len(rollout.tokens)))
    (batch,) = pack(rollout, keep, tokens_per_batch=10**6, max_row_tokens=1)
    logps = completion_logps(model, batch, 9, 1.0)[batch.completions.argsort()]
    assert torch.allclose(logps * rollout.mask, rollout.logps, atol=1e-5)
    for row in range(3):
        size = int(rollout.lengths()[row])
        ids = torch.tensor([[*PROMPTS[0], *rollout.tokens[row, :size].tolist()]])
        plain = model(ids).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
        alone = plain.gather(1, rollout.tokens[row, :size, None])[:, 0]
        assert torch.allclose(logps[row, :size], alone, atol=1e-5)


def test_a_cache_with_room_holds_what_a_growing_one_holds() -> None:
    generator = torch.Generator().manual_seed(0)

    def states(rows: int, tokens: int) -> torch.Tensor:
        return torch.randn(rows, 2, tokens, 4, generator=generator)

    grown, source = DynamicCache(), DynamicCache()
    first = (states(3, 5), states(3, 5))
    for cache in (grown, source):
        cache.update(*first, 0)
    grown.batch_repeat_interleave(2)
    roomy = repeat_cache(source, 3, 2, room=3)
    assert isinstance(roomy.layers[0], RoomyLayer)
    rows = torch.tensor([0, 2, 5])
    for step in range(3):
        new = (states(6 if step == 0 else 3, 1), states(6 if step == 0 else 3, 1))
        for ours, theirs in zip(roomy.update(*new, 0), grown.update(*new, 0), strict=True):
            assert torch.equal(ours, theirs)
        if step == 0:
            roomy.reorder_cache(rows)
            grown.batch_select_indices(rows)
    assert roomy.get_seq_length() == grown.get_seq_length() == 8
