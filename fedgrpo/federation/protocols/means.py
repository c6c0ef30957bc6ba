"""Protocols in which the server sees means over groups: robust rule, noise, and what was read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import (
    Failures,
    Round,
    RoundOutcome,
    ServerSide,
    commitments_of,
    read_result,
)
from fedgrpo.federation.wire.link import Answers
from fedgrpo.federation.wire.participants import Participant
from fedgrpo.federation.wire.plans import is_single
from fedgrpo.ground.errors import CohortError
from fedgrpo.privacy.noise import add_noise
from fedgrpo.privacy.release import Aggregate, ReleasePlan, server_noise_std
from fedgrpo.robust.rules import Public, combine_blocks, sensitivity
from fedgrpo.secure.masks import BLOCK
from fedgrpo.settings import Settings

T = TypeVar("T")

_BLOCK_BYTES = 1 << 26
"""Of a block of all groups' means, at most."""


@dataclass(frozen=True)
class Group:
    """What the server knows of one group of clients.

    Attributes
    ----------
    survivors:
        Whose releases are in its mean.
    step:
        Grid on which each release was rounded before it was summed.
    """

    survivors: tuple[int, ...]
    step: float


@dataclass(frozen=True)
class GroupMeans:
    """What came of a round's groups, and why nodes are missing from it.

    Attributes
    ----------
    blocks:
        The groups' mean releases, in their order: consecutive coordinates of all of them, each
        float64, shape (groups, c). Taken once: nobody holds more than a block.
    """

    groups: tuple[Group, ...]
    failures: Failures
    blocks: Iterable[NDArray[np.float64]]

    @property
    def survivors(self) -> int:
        """Nodes whose release is in one of the means."""
        return sum(len(group.survivors) for group in self.groups)


def block_size(rows: int) -> int:
    """Coordinates of so many vectors that are worked on at a time."""
    return max(1, min(BLOCK, _BLOCK_BYTES // (8 * max(1, rows))))


@dataclass
class MeansServer(ServerSide):
    """A server that applies the robust rule itself."""

    def combined(
        self, current: Round, seen: GroupMeans, participants: Answers[Participant[T]]
    ) -> tuple[RoundOutcome, Failures]:
        """Apply the rule to what was seen of the participants."""
        failures = participants.failures | seen.failures
        with current.phase("aggregate"):
            try:
                aggregate = robust_aggregate(
                    self.settings,
                    current.plan,
                    seen,
                    self.key("server noise", current),
                    current.last,
                )
            except CohortError as error:
                return RoundOutcome(error.problem, buckets=len(seen.groups)), failures
        survivors = {node for group in seen.groups for node in group.survivors}
        outcome = RoundOutcome(
            aggregate=aggregate,
            finished=seen.survivors,
            buckets=len(seen.groups),
            commitments=commitments_of(participants, survivors),
        )
        return outcome, failures


def robust_aggregate(
    settings: Settings,
    plan: ReleasePlan,
    seen: GroupMeans,
    key: bytes | None = None,
    last: NDArray[np.float64] | None = None,
) -> Aggregate:
    """Combine means by the robust rule, add the server's noise if it is the server's to add, and
    read.

    Adversary of server noise: whoever sees the models that are released. The server itself sees the
    means. ``key`` (32 secret bytes) makes the noise that of a repeated round too, see
    :func:`fedgrpo.privacy.noise.add_noise`. ``last`` is the last released aggregate in the update's
    own units, None or of size 0 if there is none.

    Raises
    ------
    CohortError
        If the rule needs more groups.
    """
    rule, trim, groups = settings.robust.rule, settings.robust.trim, seen.groups
    shape = (len(groups), plan.size)
    combined = combine_blocks(rule, seen.blocks, shape, trim, _public(settings, plan, last))
    if settings.privacy.unit == "none" or settings.privacy.noise == "client":
        return read_result(settings, plan, combined)
    # One client moves the mean over its group's survivors, so the smallest number of survivors
    # counts.
    smallest = min(len(group.survivors) for group in groups)
    std = server_noise_std(
        settings.privacy,
        sensitivity(rule, len(groups), trim, smallest),
        plan.expected_prompts,
        rounding=max(group.step for group in groups) * math.sqrt(plan.size),
    )
    return read_result(settings, plan, add_noise(combined, std, key))


def _public(settings: Settings, plan: ReleasePlan, last: NDArray[np.float64] | None) -> Public:
    """What the rule may know beside what it combines."""
    return Public(
        plan.dimension,
        None if last is None or not last.size else last * plan.update_scale,
        plan.radius or math.inf,
        plan.figures_norm if plan.radius else math.inf,
        single=is_single(settings),
    )
