"""The decode loop: one step, whose whole state stands in buffers, again and again.

On a CPU rows that ended leave the batch as soon as a quarter has; on a GPU, where a batch of one
size is a graph that was captured once, those that are left move into the next smaller size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fedgrpo.grpo.rollout.choice.drawing import choose
from fedgrpo.grpo.rollout.choice.stops import Stops
from fedgrpo.grpo.rollout.choice.warping import NOTHING, PLAIN, Warping, marked
from fedgrpo.grpo.rollout.replay import BUSY, Replay, kept
from fedgrpo.grpo.rollout.streams import (
    COLUMNS,
    FixedStream,
    GrowingStream,
    Prefilled,
    is_fixed,
    stream_over,
)

COMPACT_AT = 0.25
"""Share of finished rows at which they are dropped from the batch: selecting cache rows costs a
copy.
"""
LOOK_EVERY = 8
"""Steps between two looks at what has ended, on a device that would have to be waited for."""
FEWEST_ROWS = 32
"""Rows of a GPU's smallest batch."""


@dataclass(frozen=True)
class Decoding:
    """What all steps of a batch have in common.

    Attributes
    ----------
    max_tokens:
        Longest completion, T.
    temperature:
        0 is greedy.
    eos_ids:
        Tokens that end a completion.
    warping:
        What is kept of each token's distribution.
    """

    max_tokens: int
    temperature: float
    eos_ids: tuple[int, ...]
    warping: Warping = PLAIN


class Decoder:
    """R rows on their way, each behind one or several contexts.

    Attributes
    ----------
    tokens, logps:
        Shape (R, T): what was chosen so far, int64 and float32.
    running:
        Bool, shape (R,): false behind an end token.
    """

    def __init__(
        self,
        streams: Sequence[FixedStream | GrowingStream],
        rows: int,
        decoding: Decoding,
        vocabulary: int = 0,
    ) -> None:
        self.streams, self.decoding = list(streams), decoding
        device, length = streams[0].state()[0].device, decoding.max_tokens
        self.tokens = torch.zeros(rows, length, dtype=torch.long, device=device)
        self.logps = torch.zeros(rows, length, device=device)
        self.running = torch.ones(rows, dtype=torch.bool, device=device)
        self._token = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._uniform = torch.zeros(rows, length, dtype=torch.float64, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        # Of rows and vocabulary, only where it is looked at.
        columns = vocabulary if decoding.warping.penalises else 0
        self._seen = torch.zeros(rows, columns, dtype=torch.bool, device=device)
        self._powers = torch.ones(len(streams), 1, 1, device=device)
        self._ends = torch.tensor(decoding.eos_ids, device=device)
        # What grows is another step every time.
        is_fixed = all(isinstance(stream, FixedStream) for stream in streams)
        self._replay = Replay(self.step, self.state()) if is_fixed else None

    def state(self) -> list[Tensor]:
        """All that decides the next step, but for keys and values."""
        own = [self._step, self._token, self.tokens, self.logps, self.running, self._seen]
        return [*own, *(buffer for stream in self.streams for buffer in stream.state())]

    def begin(
        self, seen: Sequence[Prefilled], powers: Sequence[float], group: int, uniform: Tensor
    ) -> None:
        """Take ``group`` rows of each prompt, and choose their first tokens.

        Parameters
        ----------
        seen:
            The prompts behind each context.
        powers:
            Of each context's probabilities.
        uniform:
            float64, shape (n, T): the number that each token is the inverse transform of.
        """
        count = len(uniform)
        for stream, prompts in zip(self.streams, seen, strict=True):
            stream.begin(prompts, group)
        self._uniform[:count] = uniform
        self._powers.copy_(torch.tensor(powers)[:, None, None])
        self._step.zero_()
        self.running.fill_(True)
        self.running[count:] = False
        if self.decoding.warping.penalises:
            ids = seen[0].ids.masked_fill(seen[0].real == 0, NOTHING)
            already = marked(ids, self._seen.shape[1])
            self._seen[:count] = already.repeat_interleave(group, 0)
        first = self._product([prompts.logits for prompts in seen])
        logits = first.new_zeros(len(self.running), first.shape[1])
        logits[:count] = first.repeat_interleave(group, 0)
        self._choose(logits)

    def advance(self) -> None:
        """One step, replayed where it was captured."""
        if self._replay:
            self._replay()
        else:
            self.step()

    def step(self) -> None:
        """Take every row's last token, and choose its next one."""
        self._choose(self._product([stream.advance(self._token) for stream in self.streams]))

    def take(self, other: Decoder, rows: Tensor) -> None:
        """Go on with these rows of another decoder, or of this one."""
        count = len(rows)
        for name in ("tokens", "logps", "running", "_token", "_uniform", "_seen"):
            mine, theirs = getattr(self, name), getattr(other, name)
            chosen = theirs.index_select(0, rows)
            if other is self:
                setattr(self, name, chosen)
            else:
                mine[:count] = chosen
        for stream, source in zip(self.streams, other.streams, strict=True):
            stream.take(source, rows)  # type: ignore[arg-type]
        self.running[count:] = False
        if other is not self:
            self._step.copy_(other._step)
            self._powers.copy_(other._powers)

    def _choose(self, logits: Tensor) -> None:
        uniform = self._uniform.index_select(1, self._step)
        warping, seen = self.decoding.warping, self._seen
        token, logp = choose(logits, self.decoding.temperature, uniform, warping, seen)
        if warping.penalises:
            seen.scatter_(1, token, True)
        self.tokens.index_copy_(1, self._step, token)
        self.logps.index_copy_(1, self._step, logp)
        self.running.logical_and_(~torch.isin(token[:, 0], self._ends))
        self._token.copy_(token)
        self._step.add_(1)

    def _product(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits of the product of the contexts' distributions, float32, shape (rows, V)."""
        if len(logits) == 1:
            return logits[0].float()
        parts = torch.stack([each.float().log_softmax(-1) for each in logits])
        return (self._powers * parts).sum(0)


def decode(
    model: PreTrainedModel,
    seen: Sequence[Prefilled],
    powers: Sequence[float],
    group: int,
    uniform: Tensor,
    decoding: Decoding,
    stops: Stops | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode until all rows have ended; tokens and log-probabilities, shape (n, T), on the model's
    device. What stands behind an end token, or a text that stops, is arbitrary.

    Parameters
    ----------
    seen, powers, group, uniform:
        See :meth:`Decoder.begin`. A single context has power 1.
    """
    with BUSY if model.device.type == "cuda" else nullcontext():
        return _decoded(model, seen, powers, group, uniform, decoding, stops)


def _decoded(
    model: PreTrainedModel,
    seen: Sequence[Prefilled],
    powers: Sequence[float],
    group: int,
    uniform: Tensor,
    decoding: Decoding,
    stops: Stops | None,
) -> tuple[Tensor, Tensor]:
    rows, device = len(uniform), model.device
    tokens = torch.zeros(rows, decoding.max_tokens, dtype=torch.long, device=device)
    logps = torch.zeros(rows, decoding.max_tokens, device=device)
    alive = torch.arange(rows, device=device)
    size = _Size(model, seen, decoding)
    decoder = size.decoder(rows)
    decoder.begin(seen, powers, group, uniform)
    done, looked, every = 1, 0, LOOK_EVERY if device.type == "cuda" else 1
    while True:
        if stops:
            _end_at_stops(decoder, stops, looked, done)
            looked = done
        left = decoder.running[: len(alive)].nonzero()[:, 0]
        over = done >= decoding.max_tokens or not len(left)
        if over or size.is_worth(len(left), len(decoder.running)):
            tokens[alive], logps[alive] = (
                part[: len(alive)] for part in (decoder.tokens, decoder.logps)
            )
        if over:
            return tokens, logps
        if size.is_worth(len(left), len(decoder.running)):
            alive, smaller = alive[left], size.smaller(decoder, len(left))
            smaller.take(decoder, left)
            decoder = smaller
        for _ in range(min(every, decoding.max_tokens - done)):
            decoder.advance()
            done += 1


def _end_at_stops(decoder: Decoder, stops: Stops, looked: int, done: int) -> None:
    """Let rows run no further that have come to a text that stops, behind ``looked`` tokens."""
    rows = decoder.running.nonzero()[:, 0]
    tokens = decoder.tokens[rows, :done]
    ends = stops.reached(tokens, [done] * len(rows), [looked] * len(rows))
    left = torch.tensor([not end for end in ends], dtype=torch.bool, device=rows.device)
    decoder.running[rows] = left


@dataclass(frozen=True)
class _Size:
    """Which sizes a batch has on its way: any on a CPU, a few on a GPU, whose decoders are kept."""

    model: PreTrainedModel
    seen: Sequence[Prefilled]
    decoding: Decoding

    @property
    def is_captured(self) -> bool:
        """Whether steps are replayed, so that sizes must be few."""
        fixed = all(is_fixed(self.model, prompts) for prompts in self.seen)
        return self.model.device.type == "cuda" and fixed

    def decoder(self, rows: int) -> Decoder:
        """One for at least so many rows."""
        room = self.decoding.max_tokens
        columns = [prompts.width + room for prompts in self.seen]
        if not self.is_captured:
            return self._made(rows, columns)
        rows, columns = row_bucket(rows), [-(-each // COLUMNS) * COLUMNS for each in columns]
        key = ("decoder", rows, tuple(columns), self.decoding)
        return kept(self.model, key, lambda: self._made(rows, columns))

    def smaller(self, decoder: Decoder, rows: int) -> Decoder:
        """Where so many rows go on."""
        return self.decoder(rows) if self.is_captured else decoder

    def is_worth(self, left: int, rows: int) -> bool:
        """Whether a batch of so many rows should go on with those that are left."""
        if self.is_captured:
            return row_bucket(left) <= rows // 2
        return left <= (1 - COMPACT_AT) * rows

    def _made(self, rows: int, columns: Sequence[int]) -> Decoder:
        model, room = self.model, self.decoding.max_tokens
        pairs = zip(self.seen, columns, strict=True)
        streams = [stream_over(model, prompts, rows, wide, room) for prompts, wide in pairs]
        return Decoder(streams, rows, self.decoding, self.seen[0].logits.shape[1])


def row_bucket(rows: int) -> int:
    """Rows of a GPU's batch: doubling up to four times the fewest, then by twice the fewest."""
    size = FEWEST_ROWS
    while size < rows:
        size += min(size, 2 * FEWEST_ROWS)
    return size
