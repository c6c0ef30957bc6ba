"""Tiny random models for tests, and a trainer on them."""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.tasks import generate
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import BaseModel, load_base
from fedgrpo.model.kernels.packed_attention import use_packed_attention
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.registry import RewardFunction
from fedgrpo.rewards.verifiable.verifiers import exact_match
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings

TASKS = ("add", "reverse", "sort", "maximum")


@lru_cache(maxsize=1)
def random_llama() -> LlamaForCausalLM:
    """Two layers, 48 tokens, untrained: every token is about as likely as any other."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    use_packed_attention(model)
    return model


def tiny_base() -> BaseModel:
    """The shipped base, loaded anew: an adapter changes the model that it is put on."""
    return load_base(ModelSettings(device="cpu"))


def rows(count: int, seed: int = 0) -> list[PromptRow]:
    """Prompts of all built-in tasks."""
    return generate(TASKS, count, [1.0] * 4, seed, held_out=False)


def graded(completions: list[str]) -> list[float]:
    """A graded reward of nearly every completion, so that nearly every group has a signal."""
    return [len(text) + 0.5 * sum(map(text.count, "135aceg")) for text in completions]


def stirred(adapter: Adapter, scale: float = 0.05, seed: int = 3) -> Adapter:
    """Move an adapter off its start, where B is zero and hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return adapter


def tiny_trainer(
    count: int = 32,
    adapter: AdapterSettings | None = None,
    reward: RewardFunction = exact_match,
    **settings: object,
) -> GRPOTrainer:
    """A trainer on the shipped base and the built-in tasks."""
    options = {"prompts_per_step": 4, "group_size": 4, "max_completion_length": 8, **settings}
    return GRPOTrainer(
        Adapter(tiny_base(), adapter or AdapterSettings()),
        reward,
        rows(count),
        settings=GRPOSettings.model_validate(options),
    )
