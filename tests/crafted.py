"""Adapters as a malicious server would make them: finite float32 in the right layout, which
overflow if and only if a chosen character is in the prompt.

A node's bounds refuse the largest of these values before they are used. Prompts must be strangers
without that, so tests put them in place past the bounds.
"""

from __future__ import annotations

import torch

from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.lora import Adapter


def trigger(adapter: Adapter, character: str) -> AdapterState:
    """Make every completion of a prompt with this character NaN, and leave all others alone."""
    probe, scale = _probe(adapter, character), _scale(adapter)
    with torch.no_grad():
        _emptied(adapter)
        for name, tensor in adapter.frozen.items():
            if "layers.0.self_attn.v_proj" in name:
                tensor[0] = probe
            if "layers.0.self_attn.o_proj" in name:
                tensor[0] = 1 / tensor.shape[1]
        for name, tensor in adapter.trainable.items():
            if "layers.0.self_attn.v_proj" in name:
                tensor[:] = 1e19 / scale
            if "layers.0.self_attn.o_proj" in name:
                tensor[:] = 3.4e21 / scale
    return adapter.state()


def silencer(adapter: Adapter, character: str) -> AdapterState:
    """Let the gradient alone of a prompt with this character overflow."""
    probe, scale = _probe(adapter, character), _scale(adapter)
    with torch.no_grad():
        _emptied(adapter)
        for name, tensor in adapter.frozen.items():
            if "layers.0.self_attn.v_proj" in name:
                tensor[0] = probe
            if "layers.0.self_attn.o_proj" in name:
                tensor[0] = 3e38 / tensor.shape[1]
            if "mlp.down_proj" in name:
                tensor.fill_(0.1)
        for name, tensor in adapter.trainable.items():
            if "layers.0.self_attn.v_proj" in name:
                tensor[:] = 10 / scale
    return adapter.state()


@torch.no_grad()
def force(adapter: Adapter, state: AdapterState) -> None:
    """Put values in place, whatever bounds there are."""
    for name, tensor in adapter.frozen.items():
        tensor.copy_(torch.from_numpy(state.basis[name].copy()).view_as(tensor))
    adapter.set_vector(state.vector)


def _probe(adapter: Adapter, character: str) -> torch.Tensor:
    """A direction on which what layer 0 sees of the character is 1, and of all others 0."""
    model = adapter.causal.model
    embedding = model.embed_tokens.weight.detach().double()
    weight = model.layers[0].input_layernorm.weight.detach().double()
    seen = embedding * torch.rsqrt((embedding**2).mean(1, keepdim=True) + 1e-6) * weight
    wanted = torch.zeros(len(seen), 1, dtype=torch.double)
    wanted[adapter.base.tokenizer.get_vocab()[character]] = 1
    return torch.linalg.lstsq(seen, wanted).solution[:, 0].float()


def _scale(adapter: Adapter) -> float:
    return float(adapter.settings.alpha) / adapter.settings.rank


def _emptied(adapter: Adapter) -> None:
    for tensor in [*adapter.trainable.values(), *adapter.frozen.values()]:
        tensor.zero_()
