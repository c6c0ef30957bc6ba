"""Forward passes of a causal language model that keep only what a judge reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fedgrpo.model.base import BaseModel

LOGITS_BUDGET = 64 * 2**20
"""Float32 logits held at once (256 MiB)."""


@torch.no_grad()
def last_logits(base: BaseModel, sequences: Sequence[Sequence[int]], budget: int) -> Tensor:
    """Logits behind the last token of each sequence.

    Parameters
    ----------
    base:
        The model.
    sequences:
        n non-empty lists of token ids.
    budget:
        Tokens that go through the model together, padding included.

    Returns
    -------
    float32 on the CPU, shape (n, V).
    """
    head = _head(base)
    rows: dict[int, Tensor] = {}
    for chosen, hidden in _hidden(base, sequences, budget):
        last = torch.tensor([len(sequences[i]) - 1 for i in chosen], device=base.device)
        logits = head(hidden[torch.arange(len(chosen), device=base.device), last]).float().cpu()
        rows.update(zip(chosen, logits, strict=True))
    if not rows:
        return torch.zeros(0, next(head.parameters()).shape[0])
    return torch.stack([rows[i] for i in range(len(sequences))])


@torch.no_grad()
def certainties(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    budget: int,
) -> Tensor:
    """Mean over completion tokens of KL(uniform || p) = logsumexp(z) - mean(z) - log V.

    Logits of at most :data:`LOGITS_BUDGET` values are held at once.

    Returns
    -------
    float32 on the CPU, nats, shape (n,); zero for an empty completion.
    """
    head = _head(base)
    vocabulary = next(head.parameters()).shape[0]
    sequences = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    result = torch.zeros(len(sequences))
    for chosen, hidden in _hidden(base, sequences, budget):
        for row, i in enumerate(chosen):
            # The position before a token is the one that predicts it.
            start, stop = len(prompts[i]) - 1, len(sequences[i]) - 1
            if start == stop:
                continue
            total = 0.0
            for part in hidden[row, start:stop].split(max(1, LOGITS_BUDGET // vocabulary)):
                logits = head(part).float()
                total += float((logits.logsumexp(1) - logits.mean(1)).sum())
            result[i] = total / (stop - start) - torch.log(torch.tensor(float(vocabulary)))
    return result


def _head(base: BaseModel) -> nn.Module:
    head: nn.Module = base.model.get_output_embeddings()
    return head


def _hidden(
    base: BaseModel, sequences: Sequence[Sequence[int]], budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Last hidden states, shape (R, S, H), of batches of similar length, with their numbers.

    Padding is on the right, where a causal model does not see it.
    """
    backbone: nn.Module = getattr(base.model, base.model.base_model_prefix)
    for chosen in _batches([len(ids) for ids in sequences], budget):
        rows = [torch.tensor(sequences[i]) for i in chosen]
        ids = pad_sequence(rows, batch_first=True, padding_value=int(base.tokenizer.pad_token_id))
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        output = backbone(
            input_ids=ids.to(base.device), attention_mask=mask.to(base.device), use_cache=False
        )
        yield chosen, output.last_hidden_state


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of sequences by length, as many together as the budget allows, at least one."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[i] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
