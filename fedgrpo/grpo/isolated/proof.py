"""What a node tries before it reads a prompt: is a row the same to the bit at any place, beside any
others.

That matrix products treat rows alike is a property of kernels, not of mathematics: they may take
another path at the edge of a batch. So every shape is run with made-up tokens, the row in question
at several places beside other rows, some of them NaN, and what comes of it is compared bit by bit.
Where it differs, prompts go through the model one at a time, in shapes that are just as fixed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.grpo.isolated.shapes import Layout, TeachingShape
from fedgrpo.grpo.isolated.slots import SamplingShape
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.kernels.attention import PACKED
from fedgrpo.rewards.composite import RewardResult

T = TypeVar("T")

TRIALS = 3
"""Times that a shape is run with the row in question at another place."""
SAFETY = 3.0
"""Times the measured cost that a batch may take: a machine has other work, and grows warm."""
STIRRED = 0.02
"""Spread of the made-up adapter: at its start a factor is zero, which hides differences."""


@dataclass(frozen=True)
class Proof:
    """What was tried, and what it cost.

    Attributes
    ----------
    alone:
        Whether prompts go one at a time, because bits differed beside others.
    sampling_s, teaching_s:
        Median time of the slowest shape to fill all slots twice, and to learn from a batch.
    """

    alone: bool
    sampling_s: float
    teaching_s: float


def prove_isolation(engine: Engine) -> Proof:
    """Try all of an engine's shapes; leaves it at one prompt a batch where bits differ. Raises
    ModelError if the model cannot be run in fixed shapes, or differs even with one prompt a batch.
    """
    causal = engine.policy.adapter.causal
    name = causal.config.model_type
    if engine.policy.adapter.quantised:
        raise ModelError(
            f"a model of type {name!r} with quantised weights has not been shown to keep prompts "
            "apart",
            cure="take its unquantised weights, or privacy.unit = 'client'",
        )
    if causal.config._attn_implementation != PACKED:
        raise ModelError(
            f"models of type {name!r} take no mask of ours, so that prompts cannot be kept apart",
            cure="take a model with plain attention in every layer, or privacy.unit = 'client'",
        )
    together = engine.layout
    for layout in (together, together.alone()):
        engine.layout = layout
        with _stirred(engine):
            seconds = _tried(engine)
        if seconds is not None:
            return Proof(layout is not together, *seconds)
    raise ModelError(
        f"a model of type {name!r} gives other bits each time: prompts cannot be kept apart",
        cure="take another model or device, or privacy.unit = 'client'",
    )


def most_sampled(units: int, expected: float, overflow: float) -> int:
    """Number of sampled units that is exceeded with probability at most ``overflow``."""
    return int(binom.isf(overflow, units, min(1.0, expected / units)))


def sized_seconds(layout: Layout, proof: Proof, prompts: int, group_size: int) -> float:
    """Most seconds that sampling for so many prompts and learning from them can take, by public
    figures alone.
    """
    fillings = -(-prompts * group_size // layout.slots) + len(layout.widths)
    sampling = proof.sampling_s * min(fillings, prompts * group_size)
    shapes = layout.teaching_shapes()
    least = min(map(layout.side, shapes))
    teaching = proof.teaching_s * min(prompts, -(-prompts // least) + len(shapes))
    return SAFETY * (sampling + teaching)


def _tried(engine: Engine) -> tuple[float, float] | None:
    """What sampling and a batch of learning take in the slowest shape; None if bits differed."""
    sampling = _longest(
        partial(_sampled_bits, engine, engine.layout.sampling(width))
        for width in engine.layout.widths
    )
    teaching = _longest(
        partial(_gradient_bits, engine, shape) for shape in engine.layout.teaching_shapes()
    )
    return None if sampling is None or teaching is None else (sampling, teaching)


def _longest(runs: Iterable[Callable[[int], tuple[bytes, float]]]) -> float | None:
    """Longest median of all runs; None as soon as one gives other bits than before."""
    longest = 0.0
    for run in runs:
        seconds = _compared(run)
        if seconds is None:
            return None
        longest = max(longest, seconds)
    return longest


def _compared(run: Callable[[int], tuple[bytes, float]]) -> float | None:
    """Median time of several trials that must give the same bits; None if they do not. The first
    also warms up, and on a machine with other work any one may stall.
    """
    results = [run(trial) for trial in range(TRIALS)]
    alike = len({bits for bits, _ in results}) == 1
    return median(seconds for _, seconds in results) if alike else None


def _sampled_bits(engine: Engine, shape: SamplingShape, trial: int) -> tuple[bytes, float]:
    """What is sampled for the made-up prompt, beside others that change from trial to trial."""
    # Enough that slots are taken a second time.
    count = shape.slots // engine.settings.group_size + 2
    rows, place = _mixed(partial(_row, engine, shape.width), count, trial)
    filled = -(-len(rows) // shape.rows) * shape.rows
    with _poisoned(engine, place, filled):
        started = time.monotonic()
        sampled = engine.sample(rows, shape, eos_ids=())
        seconds = time.monotonic() - started
    return _bits([sampled.tokens[place], sampled.logps[place], sampled.sound[place]]), seconds


def _gradient_bits(engine: Engine, shape: TeachingShape, trial: int) -> tuple[bytes, float]:
    """The gradient of the made-up prompt, beside others that change from trial to trial."""
    side = engine.layout.side(shape)
    groups, place = _mixed(partial(_group, engine, shape), side, trial)
    with _poisoned(engine, place, side):
        started = time.monotonic()
        gradients = engine.gradient_rows(groups, shape)
        seconds = time.monotonic() - started
    return _bits([gradients[place]]), seconds


def _mixed(make: Callable[[int], T], count: int, trial: int) -> tuple[list[T], int]:
    """Number 0 at one of the places of a batch; in the first trial it is alone."""
    if trial == 0 or count == 1:
        return [make(0)], 0
    place = (count - 1, count // 2)[trial % 2]
    return [make(0 if i == place else 1 + trial * count + i) for i in range(count)], place


def _row(engine: Engine, width: int, number: int) -> Row:
    """A made-up prompt; an odd number's is shorter than its columns."""
    ids = _tokens(engine, width if number % 2 else max(1, width - 1), number)
    return Row(f"made up {number}", 0, 0, hashlib.sha256(b"made up %d" % number).digest(), ids)


def _group(engine: Engine, shape: TeachingShape, number: int) -> Experience:
    """Made-up completions of a made-up prompt, as many tokens as the shape takes."""
    group, pad = engine.settings.group_size, int(engine.base.tokenizer.pad_token_id)
    length = min(shape.length, max(1, shape.span // group + number % 2))
    room = torch.full((group,), length).cumsum(0) <= shape.span
    mask = torch.arange(length).expand(group, -1) < length * room[:, None]
    tokens = torch.tensor(_tokens(engine, group * length, number + 1)).view(group, length)
    rollout = Rollout(
        (_row(engine, shape.width, number).ids,),
        tokens.masked_fill(~mask, pad),
        torch.full((group, length), -2.0).masked_fill(~mask, 0.0),
        mask,
        torch.ones(group, dtype=torch.bool),
        group,
    )
    nothing = RewardResult(np.zeros(group), {})
    return Experience(rollout, nothing, torch.linspace(-1.0, 1.5, group))


def _tokens(engine: Engine, count: int, number: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(number)
    vocabulary = engine.policy.adapter.causal.config.vocab_size
    return tuple(torch.randint(1, vocabulary, (count,), generator=generator).tolist())


def _bits(tensors: Sequence[Tensor]) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in tensors)


@contextmanager
def _stirred(engine: Engine) -> Iterator[None]:
    """Stand at made-up adapter values for a while."""
    adapter = engine.policy.adapter
    noise = np.random.default_rng(0).standard_normal(adapter.dimension, dtype=np.float32)
    with adapter.at(adapter.vector() + np.float32(STIRRED) * noise):
        yield


@contextmanager
def _poisoned(engine: Engine, place: int, side: int) -> Iterator[None]:
    """Let every third row of what goes through the model together be NaN, but for the one at
    ``place``; of a sampling, which goes through in several parts, those that come first.
    """
    seen = 0

    def poison(_module: nn.Module, _inputs: object, states: Tensor) -> Tensor:
        nonlocal seen
        numbers = torch.arange(seen, seen + len(states), device=states.device)
        seen += len(states)
        bad = (numbers % 3 == (place + 1) % 3) & (numbers < side)
        return states.masked_fill(bad[:, None, None], torch.nan)

    embedding: nn.Module = engine.policy.adapter.causal.get_input_embeddings()
    handle = embedding.register_forward_hook(poison)
    try:
        yield
    finally:
        handle.remove()
