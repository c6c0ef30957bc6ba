"""A stub language model whose logits are known: they count the tokens read so far."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache, LlamaConfig

from fedgrpo.model.base import TINY, BaseModel


class _Counts(nn.Module):
    """Hidden state of a position: how often each token occurred up to it, cache and padding
    included.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: DynamicCache | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        width = input_ids.shape[1]
        read = nn.functional.one_hot(input_ids, self.vocabulary).float()[:, None]
        if past_key_values is not None:
            read, _values = past_key_values.update(read, read, 0)
        counts = (read[:, 0] * attention_mask[:, :, None]).cumsum(1)
        return SimpleNamespace(last_hidden_state=counts[:, -width:])


class BagOfTokens(nn.Module):
    """Logits of a token: the sum over tokens read of ``weights[token, read]``."""

    base_model_prefix = "model"

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.config = LlamaConfig(num_hidden_layers=1)
        self.model = _Counts(len(weights))
        self.head = nn.Linear(*weights.shape, bias=False)
        self.head.weight.data = weights

    def get_decoder(self) -> nn.Module:
        return self.model

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def bag_of_tokens(effects: dict[tuple[str, str], float], chat: str | None = None) -> BaseModel:
    """A model over the shipped tokenizer (one token a character).

    ``effects[next, read]`` is what each ``read`` adds to the logit of ``next``.
    """
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.chat_template = chat
    weights = torch.zeros(len(tokenizer), len(tokenizer))
    for (following, read), effect in effects.items():
        row, column = tokenizer.convert_tokens_to_ids([following, read])
        weights[row, column] = effect
    model = cast(Any, BagOfTokens(weights).requires_grad_(False))
    return BaseModel(model, tokenizer, torch.device("cpu"), (1,), "stub")
