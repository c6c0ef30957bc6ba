"""Engines over made-up prompts of the shipped base."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.grpo.isolated.encoding import usable_ids
from fedgrpo.grpo.isolated.engine import Engine, Judged, Lesson
from fedgrpo.grpo.isolated.keys import Row, row_key
from fedgrpo.grpo.isolated.shapes import Layout
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.base import load_base
from fedgrpo.model.family.row_gradients import hookable, row_gradients
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings
from tests.models import graded, rows, stirred

KEY = bytes(range(32))
COUNT = 24
KNOBS = {
    "top_k": 9,
    "top_p": 0.95,
    "min_p": 0.01,
    "repetition_penalty": 1.3,
    "stop_strings": ["7", "31"],
}


def prompts() -> list[PromptRow]:
    """Of both widths: the shipped tasks', and some that are longer than 16 characters."""
    long = [PromptRow(f"sort {i}7315246{i + 3}91824=", {"answer": "1"}) for i in range(6)]
    return [*rows(COUNT - len(long)), *long]


@lru_cache(maxsize=6)
def engine(kind: str = "ffa_lora", dtype: str = "float32", *, knobs: bool = False) -> Engine:
    """An engine whose adapter is off its start; with all knobs of sampling turned, or none."""
    base = load_base(ModelSettings(device="cpu", dtype=dtype))
    adapter = stirred(Adapter(base, AdapterSettings.model_validate({"kind": kind})), 0.02)
    sizes = {"group_size": 4, "max_completion_length": 6, "prompts_per_step": 8}
    grpo = GRPOSettings.model_validate({**sizes, **(KNOBS if knobs else {})})
    several = hookable(adapter.causal, list(adapter.trainable.values()))
    layout = Layout.of(grpo, 32, several=several)
    reward = RewardMixture([("graded", graded, 1.0)])
    return Engine(Policy(adapter, grpo), reward, prompts(), layout, row_gradients)


def made(which: Engine, numbers: Sequence[int]) -> list[Row]:
    """Rows of these prompts, each a unit of its own."""
    ids = usable_ids(which.base, which.prompts, 32)
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]
    return [
        Row(name, 0, number, row_key(KEY, name, 0), ids[number] or ())
        for name, number in zip(names, numbers, strict=True)
    ]


def learned(which: Engine, numbers: Sequence[int]) -> tuple[dict[int, Judged], dict[int, Lesson]]:
    """What becomes of these prompts together, by number."""
    judged = which.collect(made(which, numbers), Watch())
    lessons = [lesson for part, _ in which.teach(judged, Watch()) for lesson in part]
    return (
        {item.row.index: item for item in judged},
        {lesson.judged.row.index: lesson for lesson in lessons},
    )


def bits(judged: Judged, lesson: Lesson) -> bytes:
    """All that is computed for a prompt."""
    rollout, rewards = judged.experience.rollout, judged.experience.rewards
    parts = [rollout.tokens, rollout.logps, rollout.mask, judged.experience.advantages]
    gradient = np.zeros(1) if lesson.gradient is None else lesson.gradient.numpy()
    arrays = [*(part.numpy() for part in parts), rewards.total, gradient]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
