"""A node tries its own shapes before it reads a prompt: is a row the same to the bit at any place,
beside any others?

That matrix products treat rows alike is a property of kernels, not of mathematics: they may take
another path at the edge of a batch. So every shape is run with made-up tokens, the row in question
at several places beside other rows, some of them NaN, and what comes of it is compared bit by bit.
Where it differs, prompts go through the model one at a time, in shapes that are just as fixed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn

from fedgrpo.errors import ModelError
from fedgrpo.grpo.experience import Experience
from fedgrpo.grpo.isolated.engine import Engine
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.grpo.isolated.shapes import Layout
from fedgrpo.grpo.sampling import Rollout
from fedgrpo.model.attention import PACKED
from fedgrpo.rewards.composite import RewardResult

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
    rows:
        Prompts side by side; 1 where bits differed beside others.
    seconds_a_batch:
        Longest that sampling a batch and learning from one took.
    """

    rows: int
    seconds_a_batch: float


def prove_isolation(engine: Engine) -> Proof:
    """Try all of an engine's shapes; leaves it at one prompt a batch where bits differ.

    Raises
    ------
    ModelError
        If the model cannot be run in fixed shapes, or differs even with one prompt a batch.
    """
    causal = engine.policy.adapter.causal
    name = causal.config.model_type
    if causal.config._attn_implementation != PACKED:
        raise ModelError(
            f"models of type {name!r} take no mask of ours, so that prompts cannot be kept apart",
            cure="take a model with plain attention in every layer, or privacy.unit = 'client'",
        )
    for layout in dict.fromkeys((engine.layout, engine.layout.alone())):
        engine.layout = layout
        with _stirred(engine):
            seconds = _tried(engine)
        if seconds is not None:
            return Proof(layout.rows, seconds)
    raise ModelError(
        f"a model of type {name!r} gives other bits each time, so that prompts cannot be kept apart",
        cure="take another model or device, or privacy.unit = 'client'",
    )


def most_sampled(units: int, expected: float, overflow: float) -> int:
    """Number of sampled units that is exceeded with probability at most ``overflow``."""
    return int(binom.isf(overflow, units, min(1.0, expected / units)))


def sized_seconds(
    layout: Layout,
    proof: Proof,
    units: int,
    expected: float,
    *,
    overflow: float,
    unit_rows: int = 1,
    judge_s: float = 0.0,
) -> float:
    """Most seconds that an order can cost, by public figures alone.

    Parameters
    ----------
    layout, proof:
        The shapes, and what a batch of them takes.
    units, expected:
        Declared number of units, and how many of them are sampled on average.
    overflow:
        Probability with which more are sampled than this is sized for.
    unit_rows:
        Most rows of a unit a round.
    judge_s:
        Most seconds that judging one prompt's group can take.
    """
    prompts = unit_rows * most_sampled(units, expected, overflow)
    return SAFETY * max(layout.most_batches(prompts)) * proof.seconds_a_batch + prompts * judge_s


def _tried(engine: Engine) -> float | None:
    """Longest that a batch took, or None if bits differed."""
    sampling = teaching = 0.0
    for width in engine.layout.widths:
        seconds = _compared(lambda row, n, w=width: _sampled_bits(engine, w, row, n))
        if seconds is None:
            return None
        sampling = max(sampling, seconds)
        for length in engine.layout.lengths:
            shape = (width, length)
            seconds = _compared(lambda row, n, s=shape: _gradient_bits(engine, s, row, n))
            if seconds is None:
                return None
            teaching = max(teaching, seconds)
    return sampling + teaching


def _compared(run: Callable[[int, int], tuple[bytes, float]]) -> float | None:
    """Longest time of several runs that must give the same bits; None if they do not."""
    results = [run(trial, trial) for trial in range(TRIALS)]
    alike = len({bits for bits, _ in results}) == 1
    return max(seconds for _, seconds in results) if alike else None


def _sampled_bits(engine: Engine, width: int, place: int, trial: int) -> tuple[bytes, float]:
    """What is sampled for the made-up prompt, beside others that change from trial to trial."""
    side = engine.layout.sampling_rows()
    rows, place = _mixed(_row(engine, width, 0), side, place, trial, lambda n: _row(engine, width, n))
    with _poisoned(engine, place, side):
        started = time.monotonic()
        sampled = engine.sample(rows, width, side)
        seconds = time.monotonic() - started
    return _bits([sampled.tokens[place], sampled.logps[place], sampled.sound[place]]), seconds


def _gradient_bits(
    engine: Engine, shape: tuple[int, int], place: int, trial: int
) -> tuple[bytes, float]:
    """The gradient of the made-up prompt, beside others that change from trial to trial."""
    side = engine.layout.teaching_rows(*shape)
    mine = _group(engine, shape, 0)
    groups, place = _mixed(mine, side, place, trial, lambda n: _group(engine, shape, n))
    with _poisoned(engine, place, side):
        started = time.monotonic()
        gradients = engine.gradient_rows(groups, shape, side)
        seconds = time.monotonic() - started
    return _bits([gradients[place]]), seconds


def _mixed(
    mine: Any, side: int, place: int, trial: int, other: Callable[[int], Any]
) -> tuple[list[Any], int]:
    """A batch with mine at one of its places; in the first trial it is alone at the first."""
    if trial == 0:
        return [mine], 0
    place = [side - 1, side // 2, side // 3][place % 3]
    return [mine if i == place else other(1 + trial * side + i) for i in range(side)], place


def _row(engine: Engine, width: int, number: int) -> Row:
    """A made-up prompt; an odd number's is shorter than its columns."""
    ids = _tokens(engine, width if number % 2 else max(1, width - 1), number)
    return Row(f"made up {number}", 0, 0, hashlib.sha256(b"made up %d" % number).digest(), ids)


def _group(engine: Engine, shape: tuple[int, int], number: int) -> Experience:
    """Made-up completions of a made-up prompt, each with an advantage."""
    width, length = shape
    settings = engine.settings
    group = settings.group_size
    sizes = torch.tensor([length if (number + i) % 3 else max(1, length // 2) for i in range(group)])
    mask = torch.arange(length) < sizes[:, None]
    tokens = torch.tensor(_tokens(engine, group * length, number + 1)).view(group, length)
    rollout = Rollout(
        (_row(engine, width, number).ids,),
        tokens.masked_fill(~mask, int(engine.base.tokenizer.pad_token_id)),
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
    """Let the input of every third prompt beside the one at ``place`` be NaN."""
    bad = torch.tensor([i != place and i % 3 == 0 for i in range(side)])

    def poison(_module: nn.Module, _inputs: object, states: Tensor) -> Tensor:
        rows = bad.repeat_interleave(len(states) // side).to(states.device)
        return states.masked_fill(rows[:, None, None], torch.nan)

    embedding: nn.Module = engine.policy.adapter.causal.get_input_embeddings()
    handle = embedding.register_forward_hook(poison)
    try:
        yield
    finally:
        handle.remove()
