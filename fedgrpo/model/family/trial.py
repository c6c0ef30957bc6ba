"""What a model is tried at when it is loaded: does it give the same distribution of the next token
padded and alone, from its cache and anew, packed and one by one.

Families differ in ways that no configuration tells: masks that are read as lengths, caches that
cannot be repeated, states that padding runs into, logits that are scaled on their way out. So a few
tokens go through each way that sampling and learning take, and are held against a plain pass. What
a family cannot do is then an error at load, by its name, not a crash or a wrong gradient later.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fedgrpo.ground.errors import ModelError
from fedgrpo.model.family.passes import arguments, output_head, text_part
from fedgrpo.model.kernels.attention import (
    additive_mask,
    new_cache,
    repeat_cache,
    takes_any_mask,
)
from fedgrpo.model.kernels.packed_attention import use_packed_attention

PROMPTS, GROUP, MORE = (3, 6), 2, 2
"""Tokens of the prompts, completions of each, and tokens of each completion."""
MOST_NATS = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Largest divergence from a plain pass. Half precision rounds differently in every shape; what it
hides here, the sweep over families in tests/model/test_families.py shows in float32.
"""


def settle_attention(model: PreTrainedModel, longest: int) -> None:
    """Take the quickest attention under which a model gives what it gives in a plain pass.

    Parameters
    ----------
    longest:
        Most tokens of a row, or 0: see
        :func:`fedgrpo.model.kernels.packed_attention.use_packed_attention`.

    Raises
    ------
    ModelError
        Names the type of a model that cannot be trained here.
    """
    before = model.config._attn_implementation
    use_packed_attention(model, longest)
    if takes_any_mask(model):
        if not trouble(model):
            return
        model.set_attn_implementation(before)
    if found := trouble(model):
        raise ModelError(
            f"models of type {model.config.model_type!r} cannot be trained: {found}",
            cure="set model.name to a model of another type, such as llama, qwen3, gemma3 or "
            "mistral",
        )


@torch.no_grad()
def trouble(model: PreTrainedModel) -> str:
    """What of sampling and learning gives another distribution than a plain pass, or fails; empty
    if all is well.
    """
    tokens = _tokens(model)
    try:
        plain = _plain(model, tokens)
    except Exception as error:
        return f"a plain pass fails ({_named(error)})"
    ways: dict[str, Callable[[PreTrainedModel, Tensor], Tensor]] = {
        "the output layer behind its last hidden states": _scored,
        "padded prompts and a repeated cache": _decoded,
    }
    if takes_any_mask(model):
        ways["completions packed behind their prompt"] = _packed
    for what, way in ways.items():
        try:
            nats = _divergence(plain, way(model, tokens))
        except Exception as error:
            return f"{what} fail ({_named(error)})"
        if not nats <= MOST_NATS.get(model.dtype, MOST_NATS[torch.bfloat16]):
            return f"{what} give another distribution, {nats:.2g} nats away"
    return ""


def _tokens(model: PreTrainedModel) -> Tensor:
    """Sequences of all completions, shape (prompts, group, longest prompt + more), the shorter
    prompt behind zeros.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = output_head(model).vocabulary
    shape = (len(PROMPTS), GROUP, max(PROMPTS) + MORE)
    drawn = torch.randint(vocabulary, shape, generator=generator)
    drawn[:, 1:, : max(PROMPTS)] = drawn[:, :1, : max(PROMPTS)]
    for row, length in enumerate(PROMPTS):
        drawn[row, :, : max(PROMPTS) - length] = 0
    return drawn.to(model.device)


def _plain(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits behind the prompt and each of its tokens, (prompts, group, more, V), one sequence at
    a time, without mask, positions or cache.
    """
    rows = [
        model(input_ids=sequence[None, max(PROMPTS) - length :], use_cache=False)
        .logits[0, -MORE - 1 : -1]
        .float()
        for group, length in zip(tokens, PROMPTS, strict=True)
        for sequence in group
    ]
    return torch.stack(rows).view(*tokens.shape[:2], MORE, -1)


def _scored(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The same by the text part and our own idea of the output layer, rows padded on the right."""
    part, rows = text_part(model), tokens.flatten(0, 1)
    lengths = torch.tensor(PROMPTS, device=tokens.device).repeat_interleave(GROUP)
    columns = torch.arange(tokens.shape[2], device=tokens.device).expand(len(rows), -1)
    shifted = (columns + max(PROMPTS) - lengths[:, None]) % tokens.shape[2]
    mask = (columns < lengths[:, None] + MORE).long()
    ids, positions = rows.gather(1, shifted) * mask, columns * mask
    states = part(**arguments(part, ids, mask, positions)).last_hidden_state
    where = lengths[:, None] - 1 + torch.arange(MORE, device=tokens.device)
    taken = states.gather(1, where[..., None].expand(-1, -1, states.shape[2]))
    return output_head(model).logits(taken).view(*tokens.shape[:2], MORE, -1)


def _decoded(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The same as sampling does: prompts padded on the left, then token by token."""
    width = max(PROMPTS)
    columns = torch.arange(width, device=tokens.device)
    lengths = torch.tensor(PROMPTS, device=tokens.device)[:, None]
    mask = (columns >= width - lengths).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = new_cache(model)
    given = arguments(model, tokens[:, 0, :width], mask, positions, cache)
    first = model(**given, logits_to_keep=1).logits[:, -1]
    logits = [first.repeat_interleave(GROUP, 0)]
    cache = repeat_cache(cache, len(PROMPTS), GROUP, MORE)
    mask, position = mask.repeat_interleave(GROUP, 0), positions[:, -1:].repeat_interleave(GROUP, 0)
    for step in range(MORE - 1):
        mask, position = torch.cat([mask, torch.ones_like(position)], 1), position + 1
        ids = tokens[:, :, width + step].reshape(-1, 1)
        logits.append(model(**arguments(model, ids, mask, position, cache)).logits[:, -1])
    return torch.stack(logits, 1).float().view(*tokens.shape[:2], MORE, -1)


def _packed(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The same in rows ``[prompt | completion | completion]`` with a mask that keeps them apart."""
    part, width, device = text_part(model), max(PROMPTS), tokens.device
    ids = torch.cat([tokens[:, 0, :width], tokens[:, :, width:].flatten(1)], 1)
    segment = torch.tensor([0] * width + [g + 1 for g in range(GROUP) for _ in range(MORE)])
    allowed = ((segment[:, None] == segment) | (segment == 0)).tril()
    shifts = torch.tensor([[width - length] for length in PROMPTS])
    there = torch.arange(len(segment)) >= shifts
    allowed = (allowed & there[:, None] & there[:, :, None]) | torch.eye(len(segment)).bool()
    mask = additive_mask(allowed, model.dtype)[:, None].to(device)
    own = torch.arange(width, width + MORE).repeat(GROUP)
    positions = (torch.cat([torch.arange(width), own]) - shifts).clamp(min=0).to(device)
    states = part(**arguments(part, ids, mask, positions)).last_hidden_state
    starts = torch.tensor([[width - 1, *range(s, s + MORE - 1)] for s in _starts(width)])
    taken = states[:, starts.flatten().to(device)]
    return output_head(model).logits(taken).view(*tokens.shape[:2], MORE, -1)


def _starts(width: int) -> range:
    return range(width, width + GROUP * MORE, MORE)


def _divergence(plain: Tensor, other: Tensor) -> float:
    """Largest KL(plain || other) of the next token, in nats; NaN if either is no distribution."""
    ours, theirs = plain.log_softmax(-1), other.log_softmax(-1)
    return float((ours.exp() * (ours - theirs)).sum(-1).max())


def _named(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}"
