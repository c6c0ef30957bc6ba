"""Small text tasks with exact answers: the demo's private prompts, and the public ones that it is
measured on.

A prompt belongs either to the held-out set or to the clients, decided by a hash of its own text, so
that no seed, split or task mixture can put an evaluation prompt into a client's hands.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.parts import Registry

Task = Callable[..., tuple[str, str]]
"""``(rng: random.Random, **options) -> (prompt, answer)``."""

TASKS: Registry[Task] = Registry("data.tasks", DataError)
register_task = TASKS.register

HELD_OUT_SHARE = 0.1
"""Share of all possible prompts that is kept for evaluation."""

_MOST_MISSES = 10_000
"""Draws in a row without a prompt that is wanted, after which there are none left."""


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
    return _hashed(prompt)[0] < HELD_OUT_SHARE * 256


def half_of(prompt: str) -> str:
    """Which half of all prompts one is in, ``a`` or ``b``: settings are searched on one, and what
    they come to is reported on the other. Depends on its text alone.
    """
    return "ab"[_hashed(prompt)[1] % 2]


def _hashed(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()


def generate(
    tasks: Sequence[str],
    count: int,
    weights: Sequence[float],
    seed: int,
    *,
    held_out: bool,
    distinct: bool = False,
) -> list[PromptRow]:
    """Draw prompts with their answers.

    Parameters
    ----------
    tasks, weights:
        Tasks as ``data.tasks`` names them and the share of each (need not sum to 1).
    count:
        Number of prompts.
    seed:
        Makes the draw reproducible.
    held_out:
        Draw evaluation prompts instead of a client's.
    distinct:
        Draw on until there are ``count`` different ones, each of which is a unit of its own: a task
        whose prompts run out passes its share to the others. Else they may repeat.

    Returns
    -------
    list of PromptRow
        Columns ``answer``, ``task`` and ``half`` (:func:`half_of`).

    Raises
    ------
    DataError
        For a task that cannot be found, or without any; or if there are not ``count`` different
        prompts.
    """
    if not tasks:
        raise DataError("data.tasks is empty", cure=f"choose from {', '.join(TASKS)}")
    drawn_by = {name: TASKS[name] for name in tasks}
    rng, rows, seen = random.Random(seed), list[PromptRow](), set[str]()
    misses = 0
    while len(rows) < count:
        (name,) = rng.choices(list(tasks), weights=list(weights))
        prompt, answer = drawn_by[name](rng)
        if is_held_out(prompt) != held_out or (distinct and prompt in seen):
            misses += 1
            _check_there_are_more(misses, len(rows), count)
            continue
        seen.add(prompt)
        columns = {"answer": answer, "task": name, "half": half_of(prompt)}
        rows.append(PromptRow(prompt, columns))
        misses = 0
    return rows


def _check_there_are_more(misses: int, found: int, count: int) -> None:
    if misses > _MOST_MISSES:
        raise DataError(
            f"{_MOST_MISSES} draws after {found} of {count} prompts gave no new one",
            cure=f"lower data.prompts_per_client to {found} and data.min_prompts with it, or "
            "choose more of data.tasks",
        )
