"""Several trees of modules over the same weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from transformers import PreTrainedModel


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Copy modules and configuration, but no weight.

    Each parameter of the copy is one of its own over the same memory, so that other values may be
    put in its place (``parameter.data = ...``) without the other tree seeing it.
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                memo[id(parameter)] = _twin(parameter)
        for tensor in _kept(module):
            memo[id(tensor)] = tensor
    return copy.deepcopy(model, memo)


def _twin(parameter: nn.Parameter) -> nn.Parameter:
    # Libraries' own kinds, of quantised weights, know more than their values, and are not replaced.
    if type(parameter) is not nn.Parameter:
        return parameter
    return nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)


def _kept(module: nn.Module) -> list[Tensor]:
    """Buffers, and what bitsandbytes keeps beside its layers."""
    state = getattr(getattr(module, "state", None), "__dict__", {})
    return [t for t in (*module._buffers.values(), *state.values()) if isinstance(t, Tensor)]
