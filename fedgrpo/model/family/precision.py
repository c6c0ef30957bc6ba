"""What precision of the base asks for: a scale of the loss, and weights in fewer bits."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from fedgrpo.ground.errors import ModelError
from fedgrpo.settings import ModelSettings

HALF_SCALE = 1024.0
"""Factor of a loss whose gradient goes through float16, which knows nothing below 6e-8: a mean over
some thousand tokens leaves a hidden state 1e-6 or less. The factor is constant, because one that
follows what overflows would let prompts reach each other.
"""


def loss_scale(dtype: torch.dtype) -> float:
    """Factor of a loss before its backward pass, and divisor of its gradient."""
    return HALF_SCALE if dtype == torch.float16 else 1.0


def quantised_loading(settings: ModelSettings, device: torch.device) -> dict[str, Any]:
    """What transformers is told to load weights in fewer bits; nothing if none are asked for.

    Raises
    ------
    ModelError
        If bitsandbytes is not installed.
    """
    if not settings.quantise:
        return {}
    if missing := [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]:
        raise ModelError(
            f"model.quantise = {settings.quantise!r} needs {' and '.join(missing)}",
            cure="pip install 'fedgrpo[quantised]', or set model.quantise = ''",
        )
    config = BitsAndBytesConfig(
        load_in_8bit=settings.quantise == "int8",
        load_in_4bit=settings.quantise == "nf4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
    )
    return {"quantization_config": config, "device_map": {"": device}}
