"""Adapters through peft: FFA-LoRA, LoRA and TinyLoRA, as torch modules that read and write an
AdapterState.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftConfig, PeftModel, TinyLoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import CONFIG_NAME
from torch import Tensor
from transformers import PreTrainedModel

from fedgrpo.ground.errors import AdapterError
from fedgrpo.model.adapter import AdapterState, check_values
from fedgrpo.model.base import BaseModel, load_base, longest_row
from fedgrpo.model.chat_style import ChatStyle
from fedgrpo.model.export.card import CARD, CHAT_TEMPLATE, hub_name, plain_card
from fedgrpo.model.family.sharing import shared_copy
from fedgrpo.model.family.targets import Targets, adapter_targets, is_quantised
from fedgrpo.model.kernels.low_rank import ADAPTER, FusedLoraLinear, fuse
from fedgrpo.model.kernels.svd_basis import kept_basis
from fedgrpo.model.quiet import quiet_loading
from fedgrpo.settings import AdapterSettings, Settings

LOG = logging.getLogger(__name__)


class Adapter:
    """A base model with one trainable adapter on it.

    Attributes
    ----------
    model:
        The PEFT model. Its base weights are frozen.
    trainable:
        Float32 parameters by sorted name: what is trained and travels.
    frozen:
        Tensors of the adapter that stay as the server made them, by sorted name.
    layout:
        See :class:`AdapterState`.
    """

    def __init__(self, base: BaseModel, settings: AdapterSettings, seed: int = 0) -> None:
        # A tree of modules of its own over the base's weights: another adapter on the same base
        # changes nothing here.
        self.base = replace(base, model=shared_copy(base.model))
        self.settings = settings
        _tell_left_out(self.base.model, settings)
        kept = self._kept_basis() if settings.kind == "tiny_lora" else nullcontext()
        with torch.random.fork_rng(), kept:
            torch.manual_seed(seed)
            self.model = with_adapter(self.base.model, settings)
        self.model.eval()
        fuse(self.model)
        # PEFT types these layers too loosely for a checker: its mixins add what is used here.
        self._layers: list[Any] = [m for m in self.model.modules() if isinstance(m, BaseTunerLayer)]
        if settings.kind == "ffa_lora":
            _freeze(self.model, "lora_A")
        named = sorted(self.model.named_parameters())
        self.trainable = {name: p for name, p in named if p.requires_grad}
        self.frozen = dict(_frozen_tensors(self.model))
        for parameter in self.trainable.values():
            parameter.data = parameter.data.float()
        self.layout = _layout(base.fingerprint, settings, self.trainable)
        self._merged: dict[int, Tensor] = {}

    def _kept_basis(self) -> AbstractContextManager[None]:
        values = sum(p.numel() for p in self.base.model.parameters() if p.ndim > 1)
        return kept_basis(f"{self.base.fingerprint[:32]}-{self.settings.rank}", values)

    @classmethod
    def from_settings(cls, settings: Settings, *, any_weights: bool = False) -> Self:
        """Load the base model that the settings name, with the adapter that a run starts from.

        Parameters
        ----------
        settings:
            Model, adapter and seed are read.
        any_weights:
            Whether weights may be in a format that can hold code.

        Raises
        ------
        ModelError
            If the model cannot be loaded.
        """
        with quiet_loading():
            longest = longest_row(settings.grpo)
            base = load_base(settings.model, any_weights=any_weights, longest=longest)
            base = replace(base, chat=ChatStyle.of(settings.data))
            return cls(base, settings.adapter, settings.seed)

    @property
    def dimension(self) -> int:
        """Number of trainable values, d."""
        return sum(p.numel() for p in self.trainable.values())

    def vector(self) -> NDArray[np.float32]:
        """Copy of the trainable values, float32, shape (d,)."""
        return flatten(list(self.trainable.values()))

    def state(self) -> AdapterState:
        """Copy of everything that travels."""
        basis = {
            name: tensor.detach().float().cpu().numpy().copy()
            for name, tensor in self.frozen.items()
        }
        return AdapterState(self.vector(), basis, self.layout)

    def check(self, state: AdapterState) -> None:
        """Refuse a state that does not fit, without touching anything.

        Adversary: a server. That basis and layout fit follows from base model and settings alone,
        so a node may say so before it has charged for anything.

        Raises
        ------
        AdapterError
            If the state is of another base model, kind, rank or size, its frozen tensors have other
            names or shapes, or values are not finite float32 within bounds.
        """
        if state.layout != self.layout or state.vector.shape != (self.dimension,):
            raise AdapterError(
                f"adapter of another layout: {state.layout[:12]} with {state.vector.size} values, "
                f"expected {self.layout[:12]} with {self.dimension}",
                cure="use the same base model and [adapter] settings everywhere",
            )
        if set(state.basis) != set(self.frozen):
            raise AdapterError(
                "the adapter's frozen tensors are missing or foreign",
                cure="send the server's basis",
            )
        for name, tensor in self.frozen.items():
            if (shape := state.basis[name].shape) != tuple(tensor.shape):
                raise AdapterError(
                    f"frozen tensor {name} has shape {shape}, expected {tuple(tensor.shape)}",
                    cure="send the server's basis",
                )
        check_values(state.vector, state.basis)

    @torch.no_grad()
    def load(self, state: AdapterState) -> None:
        """Take over trainable values and frozen tensors; raises AdapterError as :meth:`check`."""
        self.check(state)
        for name, tensor in self.frozen.items():
            tensor.copy_(torch.from_numpy(np.array(state.basis[name])))
        self.set_vector(state.vector)

    @torch.no_grad()
    def set_vector(self, vector: NDArray[np.float32]) -> None:
        """Write trainable values from a float32 vector of shape (d,)."""
        flat = torch.from_numpy(np.array(vector, dtype=np.float32))
        start = 0
        for parameter in self.trainable.values():
            parameter.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()

    @contextmanager
    def at(self, vector: NDArray[np.float32]) -> Iterator[None]:
        """Stand at other trainable values for a while: the round's global adapter as reference, for
        example.
        """
        here = self.vector()
        self.set_vector(vector)
        try:
            yield
        finally:
            self.set_vector(here)

    @property
    def quantised(self) -> bool:
        """Whether layers that carry the adapter have weights in fewer bits than can be added to."""
        return any(is_quantised(layer.get_base_layer()) for layer in self._layers)

    @property
    def causal(self) -> PreTrainedModel:
        """The causal language model with the adapter's layers in it, without PEFT's wrapper."""
        return cast(PreTrainedModel, self.model.get_base_model())

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Decode with W0 + delta in a second buffer, two products a layer fewer.

        The pristine weights are put back by pointer: merging and unmerging in place changes 45 % of
        bfloat16 weights. Where there is no W0 to add to, a quantised one, nothing changes.
        """
        if self.quantised:
            yield
            return
        layers = self._layers
        pristine = [layer.get_base_layer().weight.data for layer in layers]
        try:
            with torch.no_grad():
                for number, (layer, weight) in enumerate(zip(layers, pristine, strict=True)):
                    merged = _merged_weight(layer, weight)
                    layer.get_base_layer().weight.data = self._in_place(number, merged)
                    # Said to be merged, a layer skips its adapter. (PEFT's disable_adapter would
                    # thaw a frozen A on leaving.)
                    layer.merged_adapters.append(ADAPTER)
            yield
        finally:
            for layer, weight in zip(layers, pristine, strict=True):
                layer.merged_adapters.clear()
                layer.get_base_layer().weight.data = weight

    @property
    def merged_bytes(self) -> int:
        """Bytes that the weights which :meth:`merged` makes take beside the base's own."""
        weights = [layer.get_base_layer().weight for layer in self._layers]
        return 0 if self.quantised else sum(w.numel() * w.element_size() for w in weights)

    def _in_place(self, number: int, merged: Tensor) -> Tensor:
        """A layer's merged weight; on a GPU at one address for good, where captured graphs read
        it.
        """
        if not merged.is_cuda:
            return merged
        return self._merged.setdefault(number, torch.empty_like(merged)).copy_(merged)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base model alone for a while, leaving every parameter as it is and as frozen as
        it is.
        """
        layers = self._layers
        if any(layer.merged_adapters for layer in layers):
            raise AdapterError(
                "the adapter is merged into the weights and cannot be switched off",
                cure="leave merged() first",
            )
        try:
            for layer in layers:
                # As in merged(): a layer that believes its adapter to be in the weights skips it.
                layer.merged_adapters.append(ADAPTER)
            yield
        finally:
            for layer in layers:
                layer.merged_adapters.clear()

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's own format: ``PeftModel.from_pretrained`` loads it.

        Beside it the chat template that it was trained with, where there is one, and a model card.
        Nothing names a folder of this machine.
        """
        self.model.save_pretrained(str(folder))
        base, kind, rank = hub_name(self.base.settings.name), self.settings.kind, self.settings.rank
        config = folder / CONFIG_NAME
        tree = json.loads(config.read_text("utf-8"))
        # PEFT writes sets in the order of a hash that differs from process to process.
        if isinstance(tree["target_modules"], list):
            tree["target_modules"].sort()
        tree["base_model_name_or_path"] = base or None
        tree["revision"] = (self.base.settings.revision or None) if base else None
        config.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", "utf-8")
        if template := self.base.chat.own_template(self.base.tokenizer):
            (folder / CHAT_TEMPLATE).write_text(template, "utf-8")
        (folder / CARD).write_text(plain_card(base, kind, rank, self.layout), "utf-8")


def _tell_left_out(model: PreTrainedModel, settings: AdapterSettings) -> None:
    if told := adapter_targets(model, settings.target_modules).told():
        kind, code = model.config.model_type, {"code": "model-odd"}
        LOG.warning("a model of type %r: no adapter on its %s", kind, told, extra=code)


def with_adapter(model: PreTrainedModel, settings: AdapterSettings) -> PeftModel:
    """Put a new adapter on a model.

    Raises
    ------
    AdapterError
        If a name among the target modules is none of the model's, or is of what carries no adapter.
    """
    targets = adapter_targets(model, settings.target_modules)
    config = peft_config(settings, targets)
    with quiet_loading():
        made: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
    return made


def peft_config(settings: AdapterSettings, targets: Targets) -> PeftConfig:
    """PEFT's configuration for these settings on these layers."""
    target = list(targets.names)
    if settings.kind == "tiny_lora":
        return TinyLoraConfig(
            r=settings.rank, u=settings.projection_dim, target_modules=target, task_type="CAUSAL_LM"
        )
    return LoraConfig(
        r=settings.rank,
        # Readers in other languages refuse 16.0.
        lora_alpha=cast(int, int(alpha) if (alpha := settings.alpha).is_integer() else alpha),
        target_modules=target,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def _merged_weight(layer: Any, weight: Tensor) -> Tensor:
    """W0 + delta in the precision of W0, in one product where the adapter is a plain one."""
    if not isinstance(layer, FusedLoraLinear):
        delta: Tensor = layer.get_delta_weight(ADAPTER)
        return weight + delta.to(weight.dtype)
    a, b = layer.factors()
    return torch.addmm(weight, (b * layer.scaling[ADAPTER]).to(weight.dtype), a.to(weight.dtype))


def flatten(tensors: list[Tensor]) -> NDArray[np.float32]:
    """Concatenate tensors into one float32 vector."""
    return torch.cat([t.detach().flatten().float().cpu() for t in tensors]).numpy().copy()


def _freeze(model: PeftModel, part: str) -> None:
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.requires_grad_(False)


def _frozen_tensors(model: PeftModel) -> Iterator[tuple[str, Tensor]]:
    """The adapter's tensors that are not trained: frozen factors and TinyLoRA's buffers."""
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in sorted(named, key=lambda item: item[0]):
        if not tensor.requires_grad and ("lora_A" in name or "tinylora_" in name):
            yield name, tensor


def _layout(
    fingerprint: str, settings: AdapterSettings, trainable: dict[str, torch.nn.Parameter]
) -> str:
    shapes = [(name, list(p.shape)) for name, p in trainable.items()]
    content = [fingerprint, settings.model_dump(), shapes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
