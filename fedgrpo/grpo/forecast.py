"""What a round will take of memory at its peak, told before it is taken.

Sampling follows from the model's shape. What an update keeps for its backward pass differs between
families, so it is looked at: losses of a few tiny shapes, of which autograd tells what it keeps,
give what a token, a token of context and a cell of a mask cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.isolated.sampling import MOST_PROMPTS
from fedgrpo.grpo.isolated.shapes import Layout, TeachingShape
from fedgrpo.grpo.isolated.slots import is_captured
from fedgrpo.grpo.isolated.teaching import batch_loss, teaching_batch
from fedgrpo.grpo.learning.update import checkpointed
from fedgrpo.grpo.rollout import scoring
from fedgrpo.grpo.rollout.memory import (
    GIB,
    budget_bytes,
    cache_bytes,
    choice_bytes,
    fitting_rows,
    free_bytes,
)
from fedgrpo.grpo.rollout.packing import MAX_ROW_TOKENS
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.family.passes import output_head
from fedgrpo.model.kernels.attention import takes_any_mask
from fedgrpo.model.kernels.packed_attention import SCORES_BUDGET
from fedgrpo.model.lora import Adapter

Floats = NDArray[np.float64]

TIMES = 2.0
"""Factor within which a real peak was found around what is foretold, on small models: see
``tests/grpo/test_forecast.py``.
"""
_PROBES = ((4, 1, 4), (4, 2, 4), (24, 2, 4), (4, 2, 24), (4, 6, 4), (24, 4, 12), (32, 2, 32))
"""Prompt, completions and completion length of what is looked at, in tokens."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that the parts of a round take on top of what is held, one after the other, if every
    completion is as long as it may be.

    Attributes
    ----------
    sampling, update, evaluation:
        At their peaks; evaluation 0 where none is asked about.
    free:
        What can be had.
    """

    sampling: int
    update: int
    evaluation: int
    free: int

    @property
    def peak(self) -> int:
        """Of all parts."""
        return max(self.sampling, self.update, self.evaluation)

    def check(self, *, private: bool) -> None:
        """Refuse what would not fit; raises ModelError with the part and what makes it smaller."""
        if self.peak <= self.free:
            return
        parts = {f.name: getattr(self, f.name) for f in fields(self)[:3]}
        said = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)
        smaller = "grpo.max_completion_length, grpo.group_size or grpo.max_prompt_length"
        by_part = {"update": "grpo.tokens_per_batch, ", "evaluation": "evaluation.prompts, "}
        cure = f"lower {by_part.get(max(parts, key=parts.__getitem__), '')}{smaller}"
        more = "" if private else ", or set grpo.gradient_checkpointing = true"
        raise ModelError(
            f"a round would take {self.peak / GIB:.1f} GiB if completions are as long as they may "
            f"be ({said}), and {self.free / GIB:.1f} GiB are free",
            cure=cure + (more if parts["update"] == self.peak else ""),
        )


@dataclass(frozen=True)
class _Counts:
    """Size of what goes through the model together: tokens of prompts and of completions, what
    completions look at, and the cells of the masks.
    """

    prompts: int
    completions: int
    context: int
    cells: int

    @classmethod
    def of(cls, rows: int, prompt: int, span: int, group: int, length: int) -> _Counts:
        """Rows of a prompt with completions of up to ``length`` tokens, ``span`` in all."""
        context = group * (prompt + length)
        cells = prompt * prompt + length * context
        return cls(rows * prompt, rows * span, rows * context, rows * cells)

    @property
    def tokens(self) -> int:
        """Of prompts and completions."""
        return self.prompts + self.completions

    def features(self) -> list[float]:
        """One number for each price."""
        each = (1, self.prompts, self.completions, self.context, self.cells)
        return list(map(float, each))


def foretold(policy: Policy, longest: int, evaluated: int = 0) -> Forecast:
    """Peaks of plain training.

    Parameters
    ----------
    policy:
        Settings, and a model that is loaded.
    longest:
        Tokens of the longest prompt.
    evaluated:
        Held-out prompts that this process completes.
    """
    settings = policy.settings
    free = free_bytes(policy.adapter.base.device)
    rows = settings.prompts_per_step * settings.group_size
    side = MAX_ROW_TOKENS if takes_any_mask(policy.adapter.causal) else 1
    prices = _prices(partial(_plain_probe, policy), policy, side=side)
    update = _update_bytes(policy.adapter, prices, _largest(policy, longest))
    return Forecast(
        _sampling_bytes(policy, longest, rows, settings.group_size),
        update,
        _sampling_bytes(policy, longest, evaluated, 1) if evaluated else 0,
        free,
    )


def foretold_apart(policy: Policy, layout: Layout) -> Forecast:
    """Peaks of prompt-level privacy, whose shapes are fixed; a server evaluates, not a node."""
    settings, adapter = policy.settings, policy.adapter
    free = free_bytes(adapter.base.device)
    prices = _prices(partial(_apart_probe, policy), policy, side=MAX_ROW_TOKENS)
    updates = []
    for shape in layout.teaching_shapes():
        side, group = layout.side(shape), settings.group_size
        counts = _Counts.of(side, shape.width, shape.span, group, shape.length)
        # Gradients of all rows stand in float32 on the factors, and in float64 behind each other.
        updates.append(_update_bytes(adapter, prices, counts) + 12 * side * adapter.dimension)
    width, length = layout.widths[-1], settings.max_completion_length
    # Prompts as they were seen, and once more behind each other.
    seen = 2 * min(MOST_PROMPTS, settings.prompts_per_step) * cache_bytes(adapter.causal, width)
    slots = layout.slots * (
        cache_bytes(adapter.causal, width + length) + choice_bytes(adapter.causal)
    )
    # Slots that a GPU replays stay where they are while it learns.
    kept = slots if is_captured(adapter.causal) else 0
    return Forecast(seen + slots + adapter.merged_bytes, max(updates) + kept, 0, free)


def _sampling_bytes(policy: Policy, longest: int, rows: int, group: int) -> int:
    """Of rows that are cut to fit, but never below one prompt's."""
    settings, model = policy.settings, policy.adapter.causal
    columns = longest + settings.max_completion_length
    budget = budget_bytes(policy.adapter.base.device, settings.memory_gb)
    prompts = max(1, fitting_rows(model, columns, budget) // group)
    at_once = min(rows, prompts * group)
    seen = at_once // group * (cache_bytes(model, longest) + longest * _wide_bytes(policy.adapter))
    decoded = at_once * (cache_bytes(model, columns) + choice_bytes(model))
    return seen + decoded + policy.adapter.merged_bytes


def _largest(policy: Policy, longest: int) -> _Counts:
    """Of the batches of an update, if all completions are as long as they may be."""
    settings = policy.settings
    length, group = settings.max_completion_length, settings.group_size
    most = MAX_ROW_TOKENS if takes_any_mask(policy.adapter.causal) else 1
    side = max(1, min(group, (most - longest) // length))
    rows = -(-group // side)
    prompts = max(1, settings.tokens_per_batch // (rows * (longest + side * length)))
    rows *= min(prompts, settings.prompts_per_step)
    return _Counts.of(rows, longest, side * length, side, length)


def _update_bytes(adapter: Adapter, prices: Floats, counts: _Counts) -> int:
    """What autograd keeps, and what stands beside it for a moment."""
    kept = float(np.dot(prices, counts.features()))
    head = output_head(adapter.causal)
    on_gpu = adapter.base.device.type == "cuda"
    most = scoring.GPU_LOGITS if on_gpu else scoring.LOGITS_BUDGET
    logits = 2 * 4 * min(most, counts.tokens * head.vocabulary)
    scores = 3 * 4 * min(SCORES_BUDGET, counts.cells * _heads(adapter))
    # Gradients and the optimiser's two moments, float32.
    own = 12 * adapter.dimension
    return int(kept + logits + scores + own + 2 * counts.tokens * _wide_bytes(adapter))


def _prices(probe: Callable[[int, int, int], int], policy: Policy, *, side: int) -> Floats:
    """Bytes for each of :meth:`_Counts.features`, none below 0, by what is kept of a few shapes.

    Parameters
    ----------
    side:
        Most completions in a row.
    """
    counts = [
        _Counts.of(-(-g // side), s, min(g, side) * t, min(g, side), t) for s, g, t in _PROBES
    ]
    with checkpointed(policy.adapter.causal, policy.settings.gradient_checkpointing):
        found = np.array([float(probe(*shape)) for shape in _PROBES])
    # Each shape counts alike, whatever its size.
    known = np.array([each.features() for each in counts]) / found[:, None]
    size = known.max(axis=0)
    prices, _ = nnls(known / size, np.ones(len(known)))
    return np.asarray(prices / size, dtype=np.float64)


def _plain_probe(policy: Policy, prompt: int, group: int, length: int) -> int:
    whole = torch.ones(group, length, dtype=torch.bool)
    tokens = torch.ones(group, length, dtype=torch.long)
    rollout = Rollout(
        ((1,) * prompt,), tokens, torch.zeros(group, length), whole, whole[:, 0], group
    )
    # One after the other, as a batch holds them.
    kept = 0
    for batch in policy.pack(rollout, range(group)):
        with _kept_bytes(policy.adapter) as count:
            policy.logps(rollout, batch)
        kept += count[0]
    return kept


def _apart_probe(policy: Policy, prompt: int, group: int, length: int) -> int:
    settings = policy.settings.model_copy(update={"group_size": group})
    shape = TeachingShape(prompt, group * length, length)
    pad = int(policy.adapter.base.tokenizer.pad_token_id)
    batch = teaching_batch([None], shape, settings, pad)
    with _kept_bytes(policy.adapter) as count:
        batch_loss(policy.adapter.causal, batch, settings)
    return count[0]


@contextmanager
def _kept_bytes(adapter: Adapter) -> Iterator[list[int]]:
    """Count what autograd keeps inside, each storage once, without the model's own."""
    count, known = [0], {p.untyped_storage().data_ptr() for p in adapter.model.parameters()}
    alive: list[Any] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            # Held, so that no other one comes to stand at its address.
            alive.append(storage)
            count[0] += storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        yield count


def _wide_bytes(adapter: Adapter) -> int:
    """Of a token in a layer's widest part, a few times over."""
    config: Any = adapter.causal.config.get_text_config()
    widest = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(3 * widest * adapter.causal.dtype.itemsize)


def _heads(adapter: Adapter) -> int:
    config: Any = adapter.causal.config.get_text_config()
    return int(getattr(config, "num_attention_heads", 1))
