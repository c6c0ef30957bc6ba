"""Rollout: sample groups of completions with our own decode loop.

The prompt is prefilled once and its cache repeated for the group, the sampler's log-probabilities
are kept, and finished rows leave the batch. Hugging Face's ``generate`` prefills every copy, throws
the log-probabilities away and decodes finished rows until the last one ends (measured:
docs/lab-log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from fedgrpo.model.attention import repeat_cache, takes_any_mask

ROWS_PER_BATCH = 1024
"""Completions decoded at once: batching is the first-order lever, memory of the cache the limit."""
COMPACT_AT = 0.25
"""Share of finished rows at which they are dropped from the batch: selecting cache rows costs a
copy.
"""


@dataclass(frozen=True)
class SamplingPlan:
    """How to sample.

    Attributes
    ----------
    group_size:
        Completions a prompt, G.
    max_tokens:
        Longest completion, T, in tokens.
    temperature:
        Softmax temperature; 0 is greedy.
    eos_ids, pad_id:
        Tokens that end a completion, and the filler after the end.
    """

    group_size: int
    max_tokens: int
    temperature: float
    eos_ids: tuple[int, ...]
    pad_id: int


@dataclass(frozen=True)
class Rollout:
    """Completions of P prompts, G each; row ``p * G + g`` is completion g of prompt p.

    Attributes
    ----------
    prompts:
        P token lists.
    tokens:
        int64, shape (P*G, T); ``pad_id`` after the end.
    logps:
        float32, shape (P*G, T): the sampler's log-probability of each token; 0 after the end.
    mask:
        bool, shape (P*G, T): true up to and including the end token.
    ended:
        bool, shape (P*G,): false where the length limit cut the completion.
    """

    prompts: tuple[tuple[int, ...], ...]
    tokens: Tensor
    logps: Tensor
    mask: Tensor
    ended: Tensor
    group_size: int

    def lengths(self) -> Tensor:
        """Tokens a completion, int64, shape (P*G,)."""
        return self.mask.sum(1)


def completion_ids(rollout: Rollout) -> list[list[int]]:
    """Token ids of every completion, end token included, without the filler."""
    lengths = rollout.lengths().tolist()
    return [row[:n] for row, n in zip(rollout.tokens.tolist(), lengths, strict=True)]


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> Rollout:
    """Sample ``plan.group_size`` completions of every prompt.

    Prompts of similar length are decoded together; the result is in the order given.
    """
    rows = len(prompts) * plan.group_size
    device = model.device
    tokens = torch.full((rows, plan.max_tokens), plan.pad_id, dtype=torch.long)
    logps = torch.zeros(rows, plan.max_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, ROWS_PER_BATCH // plan.group_size)
    for start in range(0, len(order), per_batch):
        chosen = order[start : start + per_batch]
        part_tokens, part_logps = _decode(
            model, [prompts[i] for i in chosen], plan, generator, device
        )
        where = torch.tensor(chosen)[:, None] * plan.group_size + torch.arange(plan.group_size)
        tokens[where.flatten()], logps[where.flatten()] = part_tokens.cpu(), part_logps.cpu()
    is_end = torch.isin(tokens, torch.tensor(plan.eos_ids))
    mask = is_end.cumsum(1) - is_end.long() == 0
    return Rollout(
        tuple(map(tuple, prompts)),
        tokens.masked_fill(~mask, plan.pad_id),
        logps.masked_fill(~mask, 0.0),
        mask,
        is_end.any(1),
        plan.group_size,
    )


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    plan: SamplingPlan,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Decode one batch of prompts; returns tokens and log-probabilities, shape (P*G, T), on
    ``device``. What stands behind an end token is arbitrary.
    """
    ids, attention = _left_pad(prompts, plan.pad_id, device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache: Cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    cache = repeat_cache(cache, plan.group_size, plan.max_tokens)
    mask = _decode_mask(model, attention, plan.max_tokens)
    logits, mask, position = (
        t.repeat_interleave(plan.group_size, 0) for t in (logits, mask, positions[:, -1:])
    )
    rows, seen = len(logits), ids.shape[1]
    tokens = torch.full((rows, plan.max_tokens), plan.pad_id, dtype=torch.long, device=device)
    logps = torch.zeros(rows, plan.max_tokens, device=device)
    alive = torch.arange(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    ends = torch.tensor(plan.eos_ids, device=device)
    for step in range(plan.max_tokens):
        token, logp = _choose(logits.float(), plan.temperature, generator)
        tokens[alive, step], logps[alive, step] = token, logp
        running = running & ~torch.isin(token, ends)
        left = int(running.sum())
        if left == 0 or step == plan.max_tokens - 1:
            break
        if left <= (1 - COMPACT_AT) * len(running):
            keep = running.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            alive, mask, position, token = (t[keep] for t in (alive, mask, position, token))
            running = running[keep]
        seen, position = seen + 1, position + 1
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask[..., :seen],
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return tokens, logps


def _decode_mask(model: PreTrainedModel, attention: Tensor, room: int) -> Tensor:
    """What later tokens may look at, (P, ..., S + room); its first columns serve the first of them.

    A ready 4-D mask spares Hugging Face building one with every token. On a CPU it also makes the
    attention of a query head group one product (a sixth of the time in bfloat16 with three heads to
    a group); a GPU's fastest kernels want no mask at all, which the 2-D form lets them have where
    nothing is padded.
    """
    wide = torch.cat([attention, attention.new_ones(len(attention), room)], 1)
    if attention.is_cuda or not takes_any_mask(model):
        return wide
    additive = torch.zeros(wide.shape, dtype=model.dtype, device=wide.device)
    return additive.masked_fill_(wide == 0, torch.finfo(model.dtype).min)[:, None, None]


def _choose(
    logits: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one token a row from float32 logits (rows, V); greedy rows report their unscaled
    log-probability.
    """
    logps = (logits / temperature if temperature else logits).log_softmax(-1)
    if temperature:
        token = torch.multinomial(logps.exp(), 1, generator=generator)
    else:
        token = logps.argmax(-1, keepdim=True)
    return token[:, 0], logps.gather(1, token)[:, 0]


def _left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    attention = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        attention[i, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)
