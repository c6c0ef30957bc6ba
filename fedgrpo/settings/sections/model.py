"""Settings of the base model and of the adapter that is trained on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedgrpo.settings.sections.section import Names, Section


class ModelSettings(Section):
    """The frozen base model, the same on every node."""

    name: str = "tiny"
    """A folder, a GGUF file, a Hub name, or ``tiny`` for the model that the package ships."""
    revision: str = ""
    """Commit, tag or branch of a Hub model. Empty takes the default branch; pin it in real
    federations.
    """
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights. Adapters are float32 always."""
    quantise: Literal["", "int8", "nf4"] = ""
    """Frozen weights in 8 or 4 bits, by bitsandbytes (arXiv 2208.07339, 2305.14314), computed with
    in ``dtype``. Empty keeps them as they are.
    """
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")
    """Where to compute: ``cpu``, ``cuda``, or a GPU by its number, ``cuda:1``. ``auto`` takes a GPU
    if there is one.
    """


class AdapterSettings(Section):
    """What is trained and travels."""

    kind: Literal["ffa_lora", "lora", "tiny_lora"] = "ffa_lora"
    """FFA-LoRA freezes A, so that the mean of updates is the update of the mean (arXiv 2403.12313).
    """
    rank: int = 1
    """Rank of the low-rank update (of the frozen SVD basis, for TinyLoRA)."""
    alpha: float = 16.0
    """LoRA's scale is alpha / rank. TinyLoRA does not use it."""
    target_modules: Names = ("all-linear",)
    """Names of the linear layers that carry the adapter, or ``all-linear``."""
    projection_dim: int = 4
    """TinyLoRA's trainable coordinates a module, u (arXiv 2602.04118). They make a matrix of rank x
    rank, so that more than its entries add nothing.
    """
