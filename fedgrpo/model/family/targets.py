"""Which layers carry an adapter: linear ones that text reaches and that are no router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedgrpo.ground.errors import AdapterError
from fedgrpo.model.family.passes import text_part

ALL = "all-linear"

ROUTER, UNREACHED, HEAD = "routers", "layers that text does not reach", "output layer"
EXPERTS, RENAMED = "experts", "layers whose name PEFT takes for experts'"
BYPASSED = "layers whose weights are read past them"

_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
"""What families call the layers that share tokens out among experts."""

_BYPASSED: Mapping[str, tuple[str, ...]] = {
    "falcon_h1": ("out_proj",),
    "falcon_mamba": ("out_proj", "dt_proj"),
    "mamba": ("out_proj", "dt_proj"),
    "mamba2": ("out_proj",),
    "nemotron_h": ("out_proj",),
}
"""Layers, by model type, whose weights are read past them, so that an adapter would not be seen."""


@dataclass(frozen=True)
class Targets:
    """Layers of one model.

    Attributes
    ----------
    names:
        What tells PEFT the layers that carry an adapter: last names where these suffice.
    left_out:
        Full names of what ``all-linear`` does not take, by the reason.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def told(self) -> str:
        """What is left out, in words; empty if it is the output layer alone."""
        parts = [
            f"{reason} ({', '.join(sorted({name.rpartition('.')[2] for name in names}))})"
            for reason, names in sorted(self.left_out.items())
            if reason != HEAD
        ]
        return "; ".join(parts)


def adapter_targets(model: PreTrainedModel, wanted: Sequence[str]) -> Targets:
    """Find the layers that settings name.

    Parameters
    ----------
    model:
        Without an adapter.
    wanted:
        Last or full names, or ``all-linear``.

    Raises
    ------
    AdapterError
        If a name is none of the model's, or of nothing that can carry an adapter.
    """
    modules = dict(model.named_modules())
    reasons = _reasons(model, modules)
    linear = [name for name, module in modules.items() if is_linear(module)]
    usable = [name for name in linear if name not in reasons]
    if ALL in wanted:
        if not usable:
            raise _refused(ALL, "no layer that can carry an adapter", usable)
        return Targets(_shortest(usable, modules), _by_reason(reasons))
    if not wanted:
        raise _refused("nothing", "and the model has no such layer", usable)
    chosen = [name for each in wanted for name in _named(each, modules, reasons, usable)]
    return Targets(_shortest(chosen, modules))


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a matrix, be it quantised."""
    return isinstance(module, nn.Linear | Conv1D) or hasattr(module, "qweight")


def is_quantised(module: nn.Module) -> bool:
    """Tell whether a matrix is kept in fewer bits than floating-point numbers have."""
    weight = getattr(module, "weight", None)
    return weight is None or not weight.is_floating_point()


def _named(
    name: str, modules: Mapping[str, nn.Module], reasons: Mapping[str, str], usable: Sequence[str]
) -> list[str]:
    """Full names of the layers that one name means."""
    meant = [full for full in modules if full == name or full.endswith(f".{name}")]
    if not meant:
        raise _refused(name, "and the model has no such layer", usable)
    taken = [full for full in meant if full in set(usable)]
    if not taken:
        why = sorted({reasons[full] for full in meant if full in reasons})
        raise _refused(
            name, f"which cannot carry an adapter ({why[0] if why else 'no matrix'})", usable
        )
    return taken


def _refused(name: str, why: str, usable: Sequence[str]) -> AdapterError:
    last = sorted({full.rpartition(".")[2] for full in usable})
    return AdapterError(
        f"adapter.target_modules names {name}, {why}",
        cure=f"choose from {', '.join([ALL, *last])}",
    )


def _reasons(model: PreTrainedModel, modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Why layers carry no adapter, by full name."""
    part, head = text_part(model), model.get_output_embeddings()
    reached = {id(module) for module in part.modules()}
    kind = getattr(model.config, "model_type", "")
    found = {}
    for name, module in modules.items():
        last = name.rpartition(".")[2]
        if module is head:
            found[name] = HEAD
        elif is_linear(module) and id(module) not in reached:
            found[name] = UNREACHED
        elif is_router(name, module):
            found[name] = ROUTER
        elif is_linear(module) and last in _BYPASSED.get(kind, ()):
            found[name] = BYPASSED
        elif is_linear(module) and _renamed(model, last):
            found[name] = RENAMED
        elif id(module) in reached and _holds_experts(module):
            found[name] = EXPERTS
    return found


def is_router(name: str, module: nn.Module) -> bool:
    """Tell whether a module with weights shares tokens out among experts, or is part of one that
    does.
    """
    own = any(True for _ in module.parameters(recurse=False))
    return own and not _ROUTERS.isdisjoint(name.split("."))


def _holds_experts(module: nn.Module) -> bool:
    """Weights of several matrices at once, which are no layer's."""
    return any(p.dim() == 3 for p in module.parameters(recurse=False)) and not isinstance(
        module, nn.Conv1d
    )


def _renamed(model: PreTrainedModel, last: str) -> bool:
    """Whether PEFT, given this name, would adapt experts: in checkpoints of old, experts were
    layers of that name.
    """
    config = LoraConfig(target_modules=[last])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # It wants the names of all that was fused.
        return True
    return last not in (config.target_modules or ())


def _shortest(chosen: Sequence[str], modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Last names, but full names where a last name would mean others, too."""
    picked = set(chosen)
    found = set()
    for full in chosen:
        last = full.rpartition(".")[2]
        alone = all(n in picked for n in modules if n == last or n.endswith(f".{last}"))
        found.add(last if alone else full)
    return tuple(sorted(found))


def _by_reason(reasons: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {
        reason: tuple(name for name, why in reasons.items() if why == reason)
        for reason in sorted(set(reasons.values()))
    }
