"""Forward passes of a causal language model that keep only what a judge reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedgrpo.model.base import BaseModel
from fedgrpo.model.family.passes import arguments, output_head, text_part
from fedgrpo.model.kernels.attention import choose_rows, new_cache
from fedgrpo.rewards.judges.shared_prefix import batches, find_families

LOGITS_BUDGET = 64 * 2**20
"""Float32 logits held at once (256 MiB)."""


@torch.no_grad()
def last_logits(
    base: BaseModel, sequences: Sequence[Sequence[int]], tokens: Sequence[int], budget: int
) -> Tensor:
    """Logits of some tokens behind the end of each sequence.

    What neighbouring sequences begin with goes through the model once, and its cache is repeated:
    a judge asks about many completions of one prompt.

    Parameters
    ----------
    base:
        The model.
    sequences:
        n non-empty lists of token ids.
    tokens:
        k token ids.
    budget:
        Tokens that go through the model together, padding and shared beginnings included.

    Returns
    -------
    float32 on the CPU, shape (n, k).
    """
    result = torch.zeros(len(sequences), len(tokens))
    columns = torch.tensor(tokens, device=base.device)
    for families in batches(find_families(sequences), budget):
        chosen = [i for family in families for i in family.members]
        beginnings = [sequences[family.members[0]][: family.shared] for family in families]
        rests = [sequences[i][family.shared :] for family in families for i in family.members]
        repeats = torch.tensor([len(family.members) for family in families], device=base.device)
        logits = output_head(base.model).logits(_last_hidden(base, beginnings, repeats, rests))
        result[chosen] = logits[:, columns].cpu()
    return result


def _last_hidden(
    base: BaseModel,
    beginnings: Sequence[Sequence[int]],
    repeats: Tensor,
    rests: Sequence[Sequence[int]],
) -> Tensor:
    """Hidden state of each sequence's last token, shape (n, H).

    Beginning f is shared by ``repeats[f]`` consecutive rests. Beginnings are padded on the left,
    so that the rests follow without a gap, rests on the right, where a causal model does not look.
    """
    cache, part = new_cache(base.model), text_part(base.model)
    ids, past = _padded(base, beginnings, "left")
    if ids.shape[1]:
        positions = (past.cumsum(1) - 1).clamp(min=0)
        part(**arguments(part, ids, past, positions, cache))
        rows = torch.arange(len(beginnings), device=base.device).repeat_interleave(repeats)
        choose_rows(cache, rows)
    past = past.repeat_interleave(repeats, 0)
    ids, mask = _padded(base, rests, "right")
    positions = past.sum(1)[:, None] + torch.arange(ids.shape[1], device=base.device)
    given = arguments(part, ids, torch.cat([past, mask], 1), positions, cache)
    hidden: Tensor = part(**given).last_hidden_state
    return hidden[torch.arange(len(rests), device=base.device), mask.sum(1) - 1]


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
    head = output_head(base.model)
    vocabulary = head.vocabulary
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
                logits = head.logits(part)
                total += float((logits.logsumexp(1) - logits.mean(1)).sum())
            result[i] = total / (stop - start) - torch.log(torch.tensor(float(vocabulary)))
    return result


def _padded(
    base: BaseModel, sequences: Sequence[Sequence[int]], side: str
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64, shape (rows, longest)."""
    rows = [torch.tensor(ids, dtype=torch.long) for ids in sequences]
    filler = int(base.tokenizer.pad_token_id)
    ids = pad_sequence(rows, True, filler, side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, side)
    return ids.to(base.device), mask.to(base.device)


def _hidden(
    base: BaseModel, sequences: Sequence[Sequence[int]], budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Last hidden states, shape (R, S, H), of batches of similar length, with their numbers."""
    part = text_part(base.model)
    for chosen in _by_length([len(ids) for ids in sequences], budget):
        ids, mask = _padded(base, [sequences[i] for i in chosen], "right")
        output = part(**arguments(part, ids, mask, (mask.cumsum(1) - 1).clamp(min=0)))
        yield chosen, output.last_hidden_state


def _by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of sequences by length, as many together as the budget allows, at least one."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[i] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
