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
from torch.nn import functional
from transformers import PreTrainedModel

from fedgrpo.model.family.passes import arguments
from fedgrpo.model.kernels.attention import choose_rows, new_cache, repeat_cache, takes_any_mask

ROWS_PER_BATCH = 1024
"""Completions decoded at once: batching is the first-order lever, memory of the cache the limit."""
BLOCK = 256
"""Columns of a vocabulary that are drawn from together."""
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


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> Rollout:
    """Sample ``plan.group_size`` completions of every prompt.

    Prompts of similar length are decoded together; the result is in the order given.
    """
    return sample_mixture(model, [prompts], [1.0], plan, generator)


@torch.no_grad()
def sample_mixture(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[Sequence[int]]],
    exponents: Sequence[float],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> Rollout:
    """Sample every token from the normalised product of its probabilities behind several contexts.

    Parameters
    ----------
    contexts:
        One list of P prompts for each context; the first is the prompts' own.
    exponents:
        Power of each context's probabilities. A context of power 0 is never looked at.

    Returns
    -------
    Rollout
        Over the first context's prompts; ``logps`` are the product's.
    """
    used = [(c, power) for c, power in zip(contexts, exponents, strict=True) if power]
    prompts, rows = contexts[0], len(contexts[0]) * plan.group_size
    tokens = torch.full((rows, plan.max_tokens), plan.pad_id, dtype=torch.long)
    logps = torch.zeros(rows, plan.max_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, ROWS_PER_BATCH // plan.group_size)
    for start in range(0, len(order), per_batch):
        chosen = order[start : start + per_batch]
        streams = [Stream(model, [context[i] for i in chosen], plan) for context, _ in used]
        part_tokens, part_logps = _decode(streams, [p for _, p in used], plan, generator)
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


class Stream:
    """Rows on their way through the model behind one context, ``plan.group_size`` for each of its
    prompts.

    Attributes
    ----------
    logits:
        Of the next token, shape (rows, V).
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], plan: SamplingPlan
    ) -> None:
        self._model = model
        ids, attention = _left_pad(prompts, plan.pad_id, model.device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        cache = new_cache(model)
        given = arguments(model, ids, attention, positions, cache)
        logits = model(**given, logits_to_keep=1).logits[:, -1]
        self._cache = repeat_cache(cache, len(ids), plan.group_size, plan.max_tokens)
        mask = _decode_mask(model, attention, plan.max_tokens)
        self._seen = ids.shape[1]
        self.logits, self._mask, self._position = (
            t.repeat_interleave(plan.group_size, 0) for t in (logits, mask, positions[:, -1:])
        )

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        choose_rows(self._cache, rows)
        self._mask, self._position = self._mask[rows], self._position[rows]

    def advance(self, tokens: Tensor) -> None:
        """Take the next token of every row, shape (rows,)."""
        self._seen, self._position = self._seen + 1, self._position + 1
        mask = self._mask[..., : self._seen]
        given = arguments(self._model, tokens[:, None], mask, self._position, self._cache)
        self.logits = self._model(**given).logits[:, -1]


def _decode(
    streams: Sequence[Stream],
    exponents: Sequence[float],
    plan: SamplingPlan,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Decode the streams in step; returns tokens and log-probabilities, shape (rows, T), on their
    device. What stands behind an end token is arbitrary.
    """
    rows, device = len(streams[0].logits), streams[0].logits.device
    tokens = torch.full((rows, plan.max_tokens), plan.pad_id, dtype=torch.long, device=device)
    logps = torch.zeros(rows, plan.max_tokens, device=device)
    alive = torch.arange(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    ends = torch.tensor(plan.eos_ids, device=device)
    for step in range(plan.max_tokens):
        token, logp = _choose(_product(streams, exponents), plan.temperature, generator)
        tokens[alive, step], logps[alive, step] = token, logp
        running = running & ~torch.isin(token, ends)
        left = int(running.sum())
        if left == 0 or step == plan.max_tokens - 1:
            break
        if left <= (1 - COMPACT_AT) * len(running):
            keep = running.nonzero()[:, 0]
            alive, token, running = alive[keep], token[keep], running[keep]
            for stream in streams:
                stream.select(keep)
        for stream in streams:
            stream.advance(token)
    return tokens, logps


def _product(streams: Sequence[Stream], exponents: Sequence[float]) -> Tensor:
    """Logits of the product of the streams' distributions, float32, shape (rows, V)."""
    if len(streams) == 1 and exponents[0] == 1:
        return streams[0].logits.float()
    parts = [
        power * stream.logits.float().log_softmax(-1)
        for stream, power in zip(streams, exponents, strict=True)
    ]
    return torch.stack(parts).sum(0)


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
    token = draw(logps.exp(), generator) if temperature else logps.argmax(-1, keepdim=True)
    return token[:, 0], logps.gather(1, token)[:, 0]


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one column a row in proportion to non-negative weights, shape (rows, V) to (rows, 1)."""
    uniform = torch.rand(
        len(probabilities),
        1,
        dtype=torch.float64,
        device=probabilities.device,
        generator=generator,
    )
    return invert(probabilities, uniform)


def invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Map uniform numbers in [0, 1), float64, shape (rows, 1), to columns in proportion to
    non-negative weights, shape (rows, V); returns (rows, 1).

    Inverse transform in float64, first among blocks of columns and then within one:
    ``torch.multinomial`` draws a random number for every column, which with a vocabulary of 49,152
    takes four to twenty times as long. A column of weight zero is never drawn.
    """
    rows, columns = probabilities.shape
    if columns <= BLOCK:
        up_to = probabilities.cumsum(-1, dtype=torch.float64)
        return _first_above(up_to, uniform * up_to[:, -1:])
    blocks = -(-columns // BLOCK)
    padded = functional.pad(probabilities, (0, blocks * BLOCK - columns))
    weights = padded.view(rows, blocks, BLOCK)
    of_blocks = weights.sum(-1, dtype=torch.float64)
    up_to = of_blocks.cumsum(-1)
    point = uniform * up_to[:, -1:]
    block = _first_above(up_to, point)
    before = (up_to - of_blocks).gather(1, block)
    within = weights.take_along_dim(block[..., None], 1)[:, 0].cumsum(-1, dtype=torch.float64)
    return block * BLOCK + _first_above(within, (point - before).clamp(min=0))


def _first_above(up_to: Tensor, point: Tensor) -> Tensor:
    """First column whose sum so far exceeds the row's point, (rows, n) and (rows, 1) to (rows, 1).

    Points are kept under the last sum, so that rounding never points behind it.
    """
    last = up_to[:, -1:]
    below = torch.minimum(point, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(up_to, below, right=True)


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
