"""One rollout for all clients of a process, and each client's part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout

Encoded = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What a client releases in a round, and what went wrong on the way."""

    release: NDArray[np.float64]
    mishaps: Counter[str]


def sampled_together(policy: Policy, prompts: Sequence[Sequence[Encoded]]) -> list[Rollout]:
    """Sample for the prompts of every client at once, by the policy's own generator.

    Parameters
    ----------
    policy:
        As it stands.
    prompts:
        Of each client, as token ids.

    Returns
    -------
    Each client's completions, also of one without prompts.
    """
    flat = [ids for own in prompts for ids in own]
    if not flat:
        return [empty(policy) for _ in prompts]
    rollout = policy.rollout(flat, policy.sampling_plan())
    ends = accumulate(map(len, prompts), initial=0)
    return [part(rollout, start, end) for start, end in pairwise(ends)]


def part(rollout: Rollout, start: int, end: int) -> Rollout:
    """The completions of the prompts from ``start`` to before ``end``."""
    rows = slice(start * rollout.group_size, end * rollout.group_size)
    return Rollout(
        rollout.prompts[start:end],
        rollout.tokens[rows],
        rollout.logps[rows],
        rollout.mask[rows],
        rollout.ended[rows],
        rollout.group_size,
    )


def empty(policy: Policy) -> Rollout:
    """The completions of no prompt."""
    return part(policy.rollout([(policy.adapter.base.eos_ids[0],)], policy.sampling_plan()), 0, 0)
