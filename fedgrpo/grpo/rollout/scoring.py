"""Log-probabilities of packed completions under the model, with the output layer only where it is
needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fedgrpo.grpo.rollout.choice.warping import PLAIN, History, Warped, Warping, left_filled_ids
from fedgrpo.grpo.rollout.packing import FILLER, PackedBatch
from fedgrpo.model.family.passes import Head, arguments, output_head, text_part
from fedgrpo.model.kernels.attention import PACKED, takes_any_mask
from fedgrpo.model.kernels.half_product import backward_product
from fedgrpo.model.kernels.packed_attention import equal_part

GPU_LOGITS = 256 * 2**20
"""The same on a GPU, which small products leave idle: 1 GiB."""
LOGITS_BUDGET = 8 * 2**20
"""Float32 logits held at once (32 MiB), forward and backward: the vocabulary times the completion
tokens of a batch is never held whole.
"""


def completion_logps(
    model: PreTrainedModel,
    batch: PackedBatch,
    width: int,
    temperature: float,
    warped: Warped | None = None,
) -> Tensor:
    """Log-probability of every completion token.

    Parameters
    ----------
    model:
        A causal language model (not wrapped by PEFT; adapters inside it are fine).
    batch:
        N packed completions; no two to a row if the model does not take any mask.
    width:
        Columns of the result, T.
    temperature:
        The sampler's, so that both sides mean the same distribution.
    warped:
        The sampler's, for the same reason, over the batch's tokens; None keeps all as it is.

    Returns
    -------
    float32, shape (N, T), zero where there is no token.
    """
    predicting = predicting_states(model, batch)
    head, targets = output_head(model), batch.targets.to(model.device)
    return _placed(token_logps(head, predicting, targets, temperature, warped=warped), batch, width)


def completion_scores(
    model: PreTrainedModel,
    batch: PackedBatch,
    width: int,
    temperature: float,
    warped: Warped | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of every completion token, as :func:`completion_logps` gives it, and the
    entropy of the distribution that it was drawn from, in nats; both of shape (N, T).
    """
    predicting = predicting_states(model, batch)
    head, targets = output_head(model), batch.targets.to(model.device)
    logps, entropy = token_scores(head, predicting, targets, temperature, warped=warped)
    return _placed(logps, batch, width), _placed(entropy, batch, width)


def warped_over(
    warping: Warping,
    prompts: Sequence[Sequence[int]],
    tokens: Tensor,
    batch: PackedBatch,
    device: torch.device,
) -> Warped | None:
    """What the sampler makes of the logits of a batch's tokens, of a rollout's P prompts and
    completions, int64, (P * G, T).
    """
    if warping == PLAIN:
        return None
    group = len(tokens) // len(prompts)
    before = left_filled_ids([prompts[i // group] for i in batch.completions.tolist()])
    ids = torch.cat([before, tokens[batch.completions]], 1)
    history = History(ids, batch.token_completion, before.shape[1] + batch.token_index)
    return Warped.of(warping, history.to(device))


def token_scores(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    each: int = 0,
    warped: Warped | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy, float32, shape (K,), from hidden states of shape
    (K, d). For ``each`` and ``warped`` see :func:`token_logps`.
    """
    given = (warped, head, hidden, targets, temperature)
    parts = [
        checkpoint(_chunk_scores, *given, rows, use_reentrant=False)
        for rows in _chunks(hidden, head.vocabulary, each)
    ]
    logps, entropy = torch.cat(parts).unbind(1)
    return logps, entropy


def _placed(flat: Tensor, batch: PackedBatch, width: int) -> Tensor:
    """Values of all completion tokens, shape (K,), as (N, T) with zeros elsewhere."""
    where = (batch.token_completion.to(flat.device), batch.token_index.to(flat.device))
    return flat.new_zeros(len(batch.completions), width).index_put(where, flat)


def predicting_states(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Hidden states that predict the completion tokens, shape (K, d): the output layer sees no
    other.
    """
    predictors = batch.row * batch.ids.shape[1] + batch.column
    if model.config._attn_implementation != PACKED or model.device.type != "cpu":
        # A model that takes no such mask gets rows of one completion, which need none.
        plain = (batch.segments != FILLER).long()
        mask = batch.attention_mask(model.dtype, model.device) if takes_any_mask(model) else plain
        return _hidden(model, batch.ids, batch.positions, mask)[predictors.to(model.device)]
    keep = torch.ones_like(batch.ids, dtype=torch.bool)
    if not any(module._forward_hooks for module in model.modules()):
        # One row of all tokens, without filler. Whoever listens (per-prompt gradients do) may count
        # rows.
        keep = batch.segments != FILLER
    where = keep.flatten().cumsum(0) - 1
    ids, positions = (t if keep.all() else t[keep][None] for t in (batch.ids, batch.positions))
    # A 4-D mask is handed on as it is, and the blocks take its place.
    nothing = torch.zeros(1, 1, 1, 1, dtype=model.dtype)
    packing = batch.packing(where, model.dtype)
    return _hidden(model, ids, positions, nothing, packing=packing)[where[predictors]]


def _hidden(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, mask: Tensor, **kwargs: Any
) -> Tensor:
    """Last hidden state of every token, one row after the other, shape (R * S, d)."""
    part = text_part(model)
    ids, positions, mask = (t.to(model.device) for t in (ids, positions, mask))
    hidden: Tensor = part(**arguments(part, ids, mask, positions), **kwargs).last_hidden_state
    return hidden.flatten(0, 1)


def token_logps(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    each: int = 0,
    warped: Warped | None = None,
) -> Tensor:
    """Log-probability of each target, float32, shape (K,), from hidden states of shape (K, d).

    Where ``each`` consecutive states belong together, they are cut into equal parts, so that
    each group meets the same products wherever it stands; 0 cuts as fits best. ``warped`` is told
    which of the K tokens it is given.
    """
    layer = head.layer
    plain = type(layer) is nn.Linear and not any(p.requires_grad for p in layer.parameters())
    if plain and not head.cap:
        frozen: Tensor = FrozenHeadLogps.apply(  # type: ignore[no-untyped-call]
            hidden, layer.weight, layer.bias, targets, temperature / head.scale, each, warped
        )
        return frozen
    # An output layer that is trained, caps its logits, or is no plain matrix: autograd's own way.
    given = (warped, head, hidden, targets, temperature)
    parts = [
        checkpoint(_chunk_logps, *given, rows, use_reentrant=False)
        for rows in _chunks(hidden, head.vocabulary, each)
    ]
    return torch.cat(parts)


def _chunk_logits(
    warped: Warped | None,
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    rows: slice,
) -> tuple[Tensor, Tensor]:
    """Logits of these rows, shape (n, V), and their targets, (n, 1)."""
    logits, target = head.logits(hidden[rows]) / temperature, targets[rows, None]
    return (warped(logits, target, rows)[0] if warped else logits), target


def _chunk_logps(*given: Any) -> Tensor:
    logits, target = _chunk_logits(*given)
    return logits.gather(1, target)[:, 0] - logits.logsumexp(1)


def _chunk_scores(warped: Warped | None, *given: Any) -> Tensor:
    """Log-probability and entropy, shape (rows, 2)."""
    logits, target = _chunk_logits(warped, *given)
    total = logits.logsumexp(1)
    # H = log Z - E[logit]; what was left out has no part in it.
    there = logits.masked_fill(logits.isneginf(), 0.0) if warped else logits
    entropy = total - (logits.softmax(1) * there).sum(1)
    return torch.stack([logits.gather(1, target)[:, 0] - total, entropy], 1)


class FrozenHeadLogps(torch.autograd.Function):
    """Log-probabilities through a frozen output matrix, a few rows of logits at a time.

    The gradient of one log-probability, ``(onehot - softmax) W / temperature``, has the size of its
    hidden state and does not depend on the loss, which only scales it. So it is made while the
    logits are there, and they are computed once and never kept.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        each: int,
        warped: Warped | None = None,
    ) -> Tensor:
        """Shapes: hidden (K, d), weight (V, d), bias (V,), targets (K,); returns float32 (K,)."""
        logps = torch.empty(len(hidden), device=hidden.device)
        wanted = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        slopes = torch.empty_like(hidden if wanted else hidden[:0])
        for rows in _chunks(hidden, len(weight), each):
            logits = linear(hidden[rows], weight, bias).float().div_(temperature)
            target, factor = targets[rows, None], None
            if warped:
                logits, factor = warped(logits, target, rows)
            chosen, peak = logits.gather(1, target), logits.amax(1, keepdim=True)
            # In place, where logsumexp and softmax would each write another such matrix.
            weights = logits.sub_(peak).exp_()
            total = weights.sum(1, keepdim=True)
            logps[rows] = (chosen - peak - total.log())[:, 0]
            if wanted:
                by_logit = weights.div_(-temperature * total)
                by_logit.scatter_add_(1, target, torch.full_like(total, 1 / temperature))
                if factor is not None:
                    by_logit.mul_(factor)
                slopes[rows] = backward_product(by_logit.to(weight.dtype), weight)
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the hidden states."""
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient[:, None]).to(slopes.dtype), *[None] * 6


def _chunks(hidden: Tensor, vocabulary: int, each: int) -> Iterator[slice]:
    """Parts of the rows whose logits are held at once; with ``each``, of whole equal groups or of
    equal parts of every group.
    """
    rows, budget = len(hidden), GPU_LOGITS if hidden.is_cuda else LOGITS_BUDGET
    if hidden.is_cuda and not each:
        # Where prompts are strangers the size never follows what is free.
        free, _ = torch.cuda.mem_get_info(hidden.device)
        budget = max(LOGITS_BUDGET, min(GPU_LOGITS, free // 64))
    size = max(1, budget // vocabulary)
    if each > size:
        size = equal_part(each, size)
    elif each:
        size = each * equal_part(rows // each, size // each)
    return (slice(start, start + size) for start in range(0, rows, size))
