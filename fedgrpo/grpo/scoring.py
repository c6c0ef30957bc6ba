"""Log-probabilities of packed completions under the model, with the output layer only where it is
needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fedgrpo.grpo.packing import PackedBatch

LOGITS_BUDGET = 64 * 2**20
"""Float32 logits held at once (256 MiB). Above it they are computed in chunks and again in the
backward pass.
"""


def completion_logps(
    model: PreTrainedModel, batch: PackedBatch, width: int, temperature: float
) -> Tensor:
    """Log-probability of every completion token.

    Parameters
    ----------
    model:
        A causal language model (not wrapped by PEFT; adapters inside it are fine).
    batch:
        N packed completions.
    width:
        Columns of the result, T.
    temperature:
        The sampler's, so that both sides mean the same distribution.

    Returns
    -------
    float32, shape (N, T), zero where there is no token.
    """
    return completion_scores(model, batch, width, temperature)[0]


def predicting_states(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Last hidden state at the position that predicts each completion token, shape (K, H): what the
    output layer sees. Prompts and fillers never reach it.
    """
    device = model.device
    backbone: nn.Module = getattr(model, model.base_model_prefix)
    hidden: Tensor = backbone(
        input_ids=batch.ids.to(device),
        attention_mask=batch.attention_mask(model.dtype).to(device),
        position_ids=batch.positions.to(device),
        use_cache=False,
    ).last_hidden_state
    return hidden[batch.row.to(device), batch.column.to(device)]


def completion_scores(
    model: PreTrainedModel,
    batch: PackedBatch,
    width: int,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of every completion token, and the entropy of the distribution that it was
    drawn from, in nats; both as :func:`completion_logps` gives them. Entropies are zero unless
    asked for.
    """
    device = model.device
    predicting = predicting_states(model, batch)
    head = model.get_output_embeddings()
    flat = _token_scores(head, predicting, batch.targets.to(device), temperature, with_entropy)
    where = (batch.token_completion.to(device), batch.token_index.to(device))
    logps, entropy = (
        flat.new_zeros(len(batch.completions), width).index_put(where, values)
        for values in flat.unbind(1)
    )
    return logps, entropy


def _token_scores(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> Tensor:
    """Log-probability and entropy of each token, shape (K, 2), in chunks within the budget."""
    vocabulary = next(head.parameters()).shape[0]
    per_chunk = max(1, LOGITS_BUDGET // vocabulary)
    if len(hidden) <= per_chunk:
        return _chunk_scores(head, hidden, targets, temperature, with_entropy)
    parts = [
        checkpoint(_chunk_scores, head, h, t, temperature, with_entropy, use_reentrant=False)
        for h, t in zip(hidden.split(per_chunk), targets.split(per_chunk), strict=True)
    ]
    return torch.cat(parts)


def _chunk_scores(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> Tensor:
    logits: Tensor = head(hidden).float() / temperature
    total = logits.logsumexp(1)
    logps = logits.gather(1, targets[:, None])[:, 0] - total
    if not with_entropy:
        return torch.stack([logps, torch.zeros_like(logps)], 1)
    # H = log Z - E[logit].
    return torch.stack([logps, total - (logits.softmax(1) * logits).sum(1)], 1)
