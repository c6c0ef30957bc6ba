"""How many values an adapter trains, without loading the model's weights."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModelForCausalLM

from fedgrpo.model.base import model_source
from fedgrpo.model.lora import with_adapter
from fedgrpo.model.source import check_source, explained, located
from fedgrpo.settings import AdapterSettings, ModelSettings


def adapter_dimension(model: ModelSettings, adapter: AdapterSettings) -> int:
    """Return d, the number of trainable values, from the model's configuration alone.

    Raises
    ------
    ModelError
        If the configuration cannot be read, or the model brings code of its own.
    AdapterError
        If no layer carries the adapter.
    """
    source, revision = model_source(model.name), model.revision or "main"
    check_source(source, revision)
    place, told = located(source, revision)
    with explained(source):
        config = AutoConfig.from_pretrained(place, **told, trust_remote_code=False)
        with torch.device("meta"):
            bare = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    # LoRA's factors have the shapes of the layers that they are on, and TinyLoRA's own basis, an
    # SVD, cannot be computed of weights that are not there.
    shapes = adapter.model_copy(update={"kind": "lora"})
    with torch.device("meta"):
        wrapped = with_adapter(bare, shapes)
    layers: list[Any] = [m for m in wrapped.modules() if isinstance(m, BaseTunerLayer)]
    if adapter.kind == "tiny_lora":
        return adapter.projection_dim * len(layers)
    factors = ("lora_B",) if adapter.kind == "ffa_lora" else ("lora_A", "lora_B")
    return sum(
        getattr(layer, name)["default"].weight.numel() for layer in layers for name in factors
    )
