"""What sampling takes of a device's memory, and how many rows fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from fedgrpo.ground.machine import free_memory

GIB = 2**30
SHARE = 0.5
"""Of what is free, that the rows of a sampling may take where ``grpo.memory_gb`` is not set."""
ROWS_PER_BATCH = 1024
"""Completions decoded at once at the most: more of them gain nothing."""
_LOGITS = 4
"""Float32 numbers a row and token of the vocabulary that choosing a token takes."""


def row_bytes(model: PreTrainedModel, columns: int) -> int:
    """Bytes that a row of so many columns takes while it is decoded."""
    return cache_bytes(model, columns) + choice_bytes(model)


def cache_bytes(model: PreTrainedModel, columns: int) -> int:
    """Of the keys and values of every layer, in the model's precision."""
    config: Any = model.config.get_text_config()
    # Families whose layers differ refuse to name one size for all of them.
    layers = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    return sum(map(_key_values, layers)) * columns * int(model.dtype.itemsize)


def _key_values(layer: Any) -> int:
    """Numbers that one layer keeps of a token."""
    heads = getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads
    size = getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads
    return int(2 * heads * size)


def choice_bytes(model: PreTrainedModel) -> int:
    """Of what choosing a row's token takes."""
    return int(4 * _LOGITS * model.config.get_text_config().vocab_size)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device; on a CPU, what the kernel and its limits say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    return min(free_memory(), _left_to_process())


def budget_bytes(device: torch.device, memory_gb: float) -> int:
    """Bytes that the rows of a sampling may take; 0 stands for a share of what is free."""
    return int(memory_gb * GIB) if memory_gb else int(SHARE * free_bytes(device))


def fitting_rows(model: PreTrainedModel, columns: int, budget: int) -> int:
    """Rows of so many columns that a budget of bytes takes: at least one, at most
    :data:`ROWS_PER_BATCH`.
    """
    return max(1, min(ROWS_PER_BATCH, budget // row_bytes(model, columns)))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _left_to_process() -> int:
    """What a limit on the process's addresses (``ulimit -v``) leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (ImportError, OSError, ValueError):
        return 2**62
    if limit == resource.RLIM_INFINITY:
        return 2**62
    return max(0, limit - pages * resource.getpagesize())
