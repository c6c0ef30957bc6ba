"""What differs between families of models in one pass: the arguments that it takes, where its text
part is, and what becomes of the output layer's products.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from transformers import Cache, PreTrainedModel


@dataclass(frozen=True)
class Head:
    """From last hidden states to logits.

    Attributes
    ----------
    layer:
        The output layer.
    scale:
        Factor of its products.
    cap:
        c of ``c tanh(logit / c)``, which keeps logits within +-c (arXiv 2408.00118); 0 is none.
    """

    layer: nn.Module
    scale: float = 1.0
    cap: float = 0.0

    @property
    def vocabulary(self) -> int:
        """Number of tokens, V."""
        return int(next(self.layer.parameters()).shape[0])

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32, shape (..., V), from hidden states of shape (..., d)."""
        logits: Tensor = self.layer(hidden).float() * self.scale
        return (logits / self.cap).tanh() * self.cap if self.cap else logits


def output_head(model: PreTrainedModel) -> Head:
    """How a model makes logits, as far as its configuration says: see
    :mod:`fedgrpo.model.family.trial`, which holds it against what the model does.
    """
    config = model.config.get_text_config(decoder=True)

    def declared(name: str, default: float) -> float:
        return float(getattr(config, name, None) or default)

    # Cohere and Falcon-H1 multiply, Granite divides; Gemma caps.
    scale = declared("logit_scale", 1.0) * declared("lm_head_multiplier", 1.0)
    scale /= declared("logits_scaling", 1.0)
    return Head(model.get_output_embeddings(), scale, declared("final_logit_softcapping", 0.0))


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a causal model that makes hidden states of text, without towers and output
    layer.
    """
    for part in (model.get_decoder(), getattr(model, "model", None)):
        if part is not None and part is not model:
            found: PreTrainedModel = part
            return found
    return model


def arguments(
    model: nn.Module, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None = None
) -> dict[str, Any]:
    """Arguments of a pass.

    Parameters
    ----------
    model:
        A causal model or its text part.
    ids, positions:
        int64, shape (B, L). Models that count positions by the mask are given none.
    mask:
        2-D or 4-D, as the model takes it.
    cache:
        What was seen before; None keeps nothing.
    """
    takes = _parameters(type(model).forward)
    given: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": mask,
        "use_cache": cache is not None,
    }
    if "position_ids" in takes:
        given["position_ids"] = positions
    if cache is not None and "past_key_values" in takes:
        given["past_key_values"] = cache
    elif cache is not None:
        given["cache_params"] = cache
        # Of one token there is nothing to hide, and Mamba would spread it over the mask's columns.
        given["attention_mask"] = mask if ids.shape[1] > 1 else None
    return given


@lru_cache(maxsize=64)
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
