"""Attention over packed rows ``[prompt | completion 1 | ... | completion G]`` without the blocks
that their mask forbids.

A dense mask computes S^2 scores a row, of which completions may look at none of each other's. Here
a row's prompt attends to itself, and each completion to its prompt and itself. It plugs into
Hugging Face's ``AttentionInterface``, and is SDPA wherever no :class:`Packing` is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fedgrpo.model.kernels.attention import PACKED, attends_everywhere

SCORES_BUDGET = 8 * 2**20
"""Attention scores held at once (32 MiB in float32)."""


@dataclass(frozen=True)
class Block:
    """Tokens that stand anywhere in a batch, brought side by side: B sequences of at most Q tokens.

    Attributes
    ----------
    take:
        int64, shape (B * Q,): each sequence's tokens among the batch's; any token behind its end.
    put, taken:
        int64, shape (K,): the K tokens among the batch's, and among the B * Q.
    mask:
        Additive, shape (B, 1, Q, C): which of its context's C tokens each may look at.
    """

    take: Tensor
    put: Tensor
    taken: Tensor
    mask: Tensor

    def gather(self, states: Tensor) -> Tensor:
        """(tokens, heads, size) to (B, heads, Q, size)."""
        shape = (len(self.mask), self.mask.shape[2])
        gathered: Tensor = states.index_select(0, self.take).unflatten(0, shape)
        return gathered.transpose(1, 2)

    def scatter(self, tokens: Tensor, states: Tensor) -> Tensor:
        """Write (B, Q, heads, size) back among the batch's tokens, (tokens, heads, size)."""
        return tokens.index_copy(0, self.put, states.flatten(0, 1).index_select(0, self.taken))


class Selection(Protocol):
    """An attention that selects by itself what each token may look at."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Query (R, heads, L, size), key and value (R, fewer heads, C, size); returns (R, L, heads,
        size).
        """
        ...


@dataclass(frozen=True)
class Packing:
    """P prompts that attend to themselves, and N completions that attend to theirs and themselves.

    Attributes
    ----------
    prompts, completions:
        Their context is themselves; and the prompt's S tokens, then themselves.
    prompt_of:
        int64, shape (N,): the prompt of each completion.
    """

    prompts: Block
    completions: Block
    prompt_of: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See :class:`Selection`; zero where a token is in no block."""
        q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
        prompts, completions = self.prompts, self.completions
        prompt_k, prompt_v = prompts.gather(k), prompts.gather(v)
        above = attend(prompts.gather(q), prompt_k, prompt_v, prompts.mask, scale)
        context_k, context_v = (
            torch.cat([seen.index_select(0, self.prompt_of), completions.gather(own)], 2)
            for seen, own in ((prompt_k, k), (prompt_v, v))
        )
        below = attend(completions.gather(q), context_k, context_v, completions.mask, scale)
        tokens = prompts.scatter(q.new_zeros(*q.shape[:2], v.shape[2]), above)
        rows, _, length, _ = query.shape
        attended: Tensor = completions.scatter(tokens, below).unflatten(0, (rows, length))
        return attended


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packing: Selection | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's signature of an attention function: query (R, heads, L, size), key and value
    (R, fewer heads, L, size); returns (R, L, heads, size).
    """
    if packing is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packing.attend(query, key, value, scale), None


def use_packed_attention(model: PreTrainedModel, longest: int = 0) -> None:
    """Let a model that attends through SDPA, to all that came before, do so packed.

    Parameters
    ----------
    longest:
        Most tokens of a row; 0 where it is not known. A sliding window that is wider hides nothing.
    """
    if model.config._attn_implementation == "sdpa" and attends_everywhere(model, longest):
        AttentionInterface.register(PACKED, attend_packed)
        AttentionMaskInterface.register(PACKED, sdpa_mask)
        model.set_attn_implementation(PACKED)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention with the query heads of one key head as further queries.

    Parameters
    ----------
    query, key, value:
        Shapes (B, heads, L, size), (B, fewer heads, C, size) and (B, fewer heads, C, size).
    mask:
        Shape (B, 1, L, C): added to the scores or, where it is bool, true where nobody looks.
        Selected scores are what makes sequences strangers to each other: whatever stands there,
        NaN too, has weight 0. Then the batch is also cut into equal parts, so that a sequence meets
        the same products at any place.

    Returns
    -------
    Shape (B, L, heads, size).
    """
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    grouped = query.reshape(batch, groups, -1, size)
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        grouped, key, value, mask, scale
    )
    return result.view(batch, heads, length, value.shape[-1]).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """softmax(q k^T scale + mask) v by plain products, a few of the batch at a time.

    On a CPU without matrix units PyTorch's fused kernel takes two to three times as long for blocks
    of this size, in bfloat16 above all (docs/lab-log.md). Scores are made again in the backward
    pass, not kept.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        """Shapes: query (B, h, m Q, d), key (B, h, C, d), value (B, h, C, e), mask (B, 1, Q, C)."""
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale  # type: ignore[attr-defined]
        result = value.new_empty(*query.shape[:3], value.shape[-1])
        for part in _parts(query, key, mask):
            weights = _weights(query[part], key[part], mask[part], scale)
            torch.matmul(weights.to(value.dtype), value[part], out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, mask = ctx.saved_tensors
        grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
        for part in _parts(query, key, mask):
            weights = _weights(query[part], key[part], mask[part], ctx.scale)
            rounded = weights.to(value.dtype)
            grad_value[part] = rounded.transpose(2, 3) @ gradient[part]
            slopes = (gradient[part] @ value[part].transpose(2, 3)).float()
            # The softmax's own gradient: w (dw - sum(w dw)).
            slopes = slopes.mul_(weights)
            slopes.sub_(weights.mul_(slopes.sum(-1, keepdim=True))).mul_(ctx.scale)
            rounded = slopes.to(value.dtype)
            grad_query[part] = rounded @ key[part]
            grad_key[part] = rounded.transpose(2, 3) @ query[part]
        return grad_query, grad_key, grad_value, None, None


def _weights(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention weights, float32, that may be written to."""
    scores = (query @ key.transpose(2, 3)).float().mul_(scale)
    # One mask for the query heads of a key head, and for all layers, which keep it until the end.
    by_head = scores.unflatten(2, (-1, mask.shape[2]))
    if mask.dtype == torch.bool:
        by_head.masked_fill_(mask[:, :, None], -torch.inf)
    else:
        by_head.add_(mask[:, :, None])
    return scores.softmax(-1)


def _parts(query: Tensor, key: Tensor, mask: Tensor) -> Iterator[slice]:
    batch, heads, length, _ = query.shape
    size = max(1, SCORES_BUDGET // (heads * length * key.shape[2]))
    if mask.dtype == torch.bool:
        size = equal_part(batch, size)
    return (slice(start, start + size) for start in range(0, batch, size))


def equal_part(count: int, most: int) -> int:
    """Largest divisor of ``count`` that is at most ``most``: parts of this size are all equal."""
    return next(size for size in range(min(count, most), 0, -1) if count % size == 0)
