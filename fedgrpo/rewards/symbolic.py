"""Equality of mathematical expressions through math-verify (the ``symbolic`` extra)."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from fedgrpo.data.prompts import Chat
from fedgrpo.errors import RewardError
from fedgrpo.rewards.registry import register_reward
from fedgrpo.rewards.verifiers import completion_text

TIMEOUT_S = 2
"""Longest time for reading one expression, and for comparing two: a completion may be a tower of
powers.
"""


@register_reward("symbolic_match")
def symbolic_match(
    prompts: Sequence[str | Chat],
    completions: Sequence[str | Chat],
    answer: Sequence[Any],
    **_: object,
) -> list[float | None]:
    r"""Reward 1 for a completion whose final expression equals ``answer``: ``1/2``, ``\frac12``.

    A completion's expression is looked for in ``\boxed{}``, between dollar signs, and in plain
    numbers. The answer may be bare LaTeX. A row whose answer is None or cannot be read is left to
    the other rewards. What takes longer than :data:`TIMEOUT_S` seconds is wrong.

    Raises
    ------
    RewardError
        If math-verify is not installed, or this is not the process's main thread: its time limit
        is an alarm signal.
    """
    library = _math_verify()
    return [
        None if wanted is None else _same(library, completion_text(given), str(wanted))
        for given, wanted in zip(completions, answer, strict=True)
    ]


def _same(library: ModuleType, given: str, wanted: str) -> float | None:
    is_marked = "$" in wanted or "\\boxed" in wanted
    target = library.parse(wanted if is_marked else f"${wanted}$", parsing_timeout=TIMEOUT_S)
    if not target:
        return None
    found = library.parse(given, parsing_timeout=TIMEOUT_S)
    return float(library.verify(target, found, timeout_seconds=TIMEOUT_S))


def _math_verify() -> ModuleType:
    if threading.current_thread() is not threading.main_thread():
        raise RewardError(
            "symbolic_match was called outside the main thread, where it has no time limit",
            cure="judge completions in the process's main thread",
        )
    try:
        library = importlib.import_module("math_verify")
    except ModuleNotFoundError as error:
        raise RewardError(
            f"symbolic_match needs {error.name!r}",
            cure="pip install 'fedgrpo[symbolic]', or use numeric_match",
        ) from None
    # It logs the texts that it cannot read.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return library
