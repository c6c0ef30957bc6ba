"""How many values an adapter trains, without loading the model's weights."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModelForCausalLM

from fedgrpo.errors import AdapterError, ModelError
from fedgrpo.model.base import model_source
from fedgrpo.model.lora import peft_config
from fedgrpo.settings import AdapterSettings, ModelSettings


def adapter_dimension(model: ModelSettings, adapter: AdapterSettings) -> int:
    """Return d, the number of trainable values, from the model's configuration alone.

    Raises
    ------
    ModelError
        If the configuration cannot be read.
    AdapterError
        If no layer carries the adapter.
    """
    try:
        config = AutoConfig.from_pretrained(
            model_source(model.name), revision=model.revision or "main"
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model.name = {model.name!r}: no configuration can be read: {type(error).__name__}",
            cure="give a folder with config.json, or a Hub name that this machine can reach",
        ) from error
    # LoRA's factors have the shapes of the layers that they are on, and TinyLoRA's own basis, an
    # SVD, cannot be computed of weights that are not there.
    shapes = adapter.model_copy(update={"kind": "lora"})
    with torch.device("meta"):
        wrapped = get_peft_model(AutoModelForCausalLM.from_config(config), peft_config(shapes))
    layers: list[Any] = [m for m in wrapped.modules() if isinstance(m, BaseTunerLayer)]
    if not layers:
        raise AdapterError(
            f"adapter.target_modules = {adapter.target_modules!r} matches no layer",
            cure="name linear layers of the base model, or 'all-linear'",
        )
    if adapter.kind == "tiny_lora":
        return adapter.projection_dim * len(layers)
    factors = ("lora_B",) if adapter.kind == "ffa_lora" else ("lora_A", "lora_B")
    return sum(
        getattr(layer, name)["default"].weight.numel() for layer in layers for name in factors
    )
