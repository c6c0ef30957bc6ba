"""A penalty for saying the same thing again."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.registry import RewardFunction, register_reward


def repetition_penalty(n: int = 3, maximum: float = 1.0) -> RewardFunction:
    """Make a reward of ``-maximum`` times the share of repeated n-grams (arXiv 2502.03373).

    The share is ``1 - distinct / all`` over runs of ``n`` neighbouring tokens, which needs no rule
    for what a word is and so serves every language. A completion without an n-gram gets 0.

    Parameters
    ----------
    n:
        Tokens of a run. Short runs repeat in any long text; 20 and more catch loops only.
    maximum:
        Penalty that a completion of one repeated run approaches.

    Raises
    ------
    RewardError
        If ``n`` or ``maximum`` is not positive.
    """
    if n < 1 or not maximum > 0:
        raise RewardError(
            f"repetition_penalty has n = {n} and maximum = {maximum}",
            cure="make both positive; the penalty is subtracted",
        )

    def repetition_reward(completion_ids: Sequence[Sequence[int]], **_: object) -> list[float]:
        return [-maximum * _repeated(ids, n) for ids in completion_ids]

    return repetition_reward


def _repeated(ids: Sequence[int], n: int) -> float:
    runs = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


repetition = register_reward("repetition")(repetition_penalty())
"""Minus the share of repeated 3-grams of tokens, in (-1, 0]."""
