"""Small text tasks with exact answers: the demo's private prompts, and the public ones that it is
measured on.

A prompt belongs either to the held-out set or to the holders, decided by a hash of its own text, so
that no seed, split or task mixture can put an evaluation prompt into a holder's hands.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from fedgrpo.data.prompts import PromptRow
from fedgrpo.errors import DataError
from fedgrpo.registry import Registry

Task = Callable[[random.Random], tuple[str, str]]
"""Draws one prompt and its answer."""

TASKS: Registry[Task] = Registry("data.tasks", DataError)
register_task = TASKS.register

HELD_OUT_SHARE = 0.1
"""Share of all possible prompts that is kept for evaluation."""


@register_task("add")
def _add(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    return f"{a}+{b}=", str(a + b)


@register_task("reverse")
def _reverse(rng: random.Random) -> tuple[str, str]:
    letters = "".join(rng.choices("abcdefgh", k=rng.randint(3, 6)))
    return f"rev {letters}=", letters[::-1]


@register_task("sort")
def _sort(rng: random.Random) -> tuple[str, str]:
    digits = "".join(rng.choices("0123456789", k=rng.randint(3, 6)))
    return f"sort {digits}=", "".join(sorted(digits))


@register_task("maximum")
def _maximum(rng: random.Random) -> tuple[str, str]:
    numbers = [rng.randint(0, 99) for _ in range(3)]
    return f"max {','.join(map(str, numbers))}=", str(max(numbers))


def is_held_out(prompt: str) -> bool:
    """Tell whether a prompt is kept for evaluation; depends on its text alone."""
    return hashlib.sha256(prompt.encode()).digest()[0] < HELD_OUT_SHARE * 256


def generate(
    tasks: Sequence[str], count: int, weights: Sequence[float], seed: int, *, held_out: bool
) -> list[PromptRow]:
    """Draw prompts with their answers.

    Parameters
    ----------
    tasks, weights:
        Names of registered tasks and the share of each (need not sum to 1).
    count:
        Number of prompts. They may repeat, as real prompts do.
    seed:
        Makes the draw reproducible.
    held_out:
        Draw evaluation prompts instead of a holder's.

    Returns
    -------
    list of PromptRow
        Columns ``answer`` and ``task``.

    Raises
    ------
    DataError
        For a task that is not registered, or without any.
    """
    if not tasks:
        raise DataError("data.tasks is empty", cure=f"choose from {', '.join(TASKS)}")
    for name in tasks:
        TASKS.check(name)
    rng = random.Random(seed)
    rows: list[PromptRow] = []
    while len(rows) < count:
        (name,) = rng.choices(list(tasks), weights=list(weights))
        prompt, answer = TASKS[name](rng)
        if is_held_out(prompt) == held_out:
            rows.append(PromptRow(prompt, {"answer": answer, "task": name}))
    return rows
