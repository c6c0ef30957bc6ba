from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from fedgrpo.grpo.rollout import scoring
from fedgrpo.grpo.rollout.packing import pack
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.grpo.rollout.scoring import FrozenHeadLogps, completion_logps
from fedgrpo.model.family.passes import Head


class LargestTensor(TorchDispatchMode):
    """Remember the bytes of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.slow
def test_logits_of_a_large_vocabulary_are_never_held_whole() -> None:
    vocabulary, completions, tokens = 150_000, 16, 16
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM(config).bfloat16().requires_grad_(False)
    model.model.layers[0].mlp.down_proj.weight.requires_grad_(True)
    drawn = torch.randint(vocabulary, (completions, tokens))
    whole = torch.ones_like(drawn, dtype=torch.bool)
    rollout = Rollout(
        ((1, 2, 3),), drawn, torch.zeros(drawn.shape), whole, whole[:, 0], completions
    )
    (batch,) = pack(rollout, range(completions), tokens_per_batch=10**6, max_row_tokens=1)
    with LargestTensor() as seen:
        completion_logps(model, batch, tokens, 1.0).sum().backward()
    of_logits = completions * tokens * vocabulary * 4
    assert of_logits > 4 * 4 * scoring.LOGITS_BUDGET
    assert seen.bytes <= 4 * scoring.LOGITS_BUDGET
    assert seen.bytes > scoring.LOGITS_BUDGET, "the mode sees what the function computes"


@pytest.mark.parametrize("each", [0, 1, 11])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("budget", [1, 3 * 50, 2**20])
def test_values_and_gradients_are_autograds(
    each: int, with_bias: bool, temperature: float, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "LOGITS_BUDGET", budget)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, generator=generator).mul_(3).requires_grad_(True)
    weight = torch.randn(50, 6, generator=generator)
    bias = torch.randn(50, generator=generator) if with_bias else None
    targets = torch.randint(50, (11,), generator=generator)
    logits = functional.linear(hidden, weight, bias) / temperature
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    logps = FrozenHeadLogps.apply(hidden, weight, bias, targets, temperature, each)
    assert torch.allclose(logps, expected, atol=1e-5)
    by_token = torch.randn(11, generator=generator)
    (gradient,) = torch.autograd.grad((logps * by_token).sum(), hidden)
    (reference,) = torch.autograd.grad((expected * by_token).sum(), hidden)
    assert torch.allclose(gradient, reference, atol=1e-5)


def test_an_output_layer_that_is_trained_gets_its_gradient_in_chunks_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 50)
    hidden, targets = torch.randn(11, 6), torch.randint(50, (11,))
    whole = head(hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad(whole.sum(), head.weight)
    monkeypatch.setattr(scoring, "LOGITS_BUDGET", 3 * 50)
    logps = scoring.token_logps(Head(head), hidden, targets, 1.0)
    (gradient,) = torch.autograd.grad(logps.sum(), head.weight)
    assert torch.allclose(gradient, expected, atol=1e-5)
