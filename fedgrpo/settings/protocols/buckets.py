"""``buckets``: the server sees sums over groups of clients, under one-time masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedgrpo.settings.protocols.base import Phase, Protocol, SiteLimits

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings


def secret_threshold(bucket_size: int) -> int:
    """Members of a bucket that must survive to unmask its sum: a majority, so that no two answers
    fit.
    """
    return bucket_size // 2 + 1


class Buckets(Protocol):
    """Sums over ``secure.bucket_size`` clients or more, see :mod:`fedgrpo.secure.masking`."""

    name = "buckets"
    shows = "sums over groups under one-time secret masks"
    sees = "bucket sums"
    phases = (
        Phase("share", "exchanging keys in buckets"),
        Phase("mask", "collecting masked updates"),
        Phase("unmask", "unmasking bucket sums"),
    )
    messages = ("share", "mask", "unmask")

    def group_size(self, settings: Settings) -> int:
        """Clients of the smallest bucket."""
        return settings.secure.bucket_size

    def adversaries(self, settings: Settings, size: int) -> list[tuple[str, float]]:
        """The server with all of a client's peers, who can take off every noise but its own; and
        the server alone, which faces that of all who are sure to survive.
        """
        noise = settings.privacy.noise_multiplier
        return [
            ("server colluding with all of a client's bucket peers", noise),
            (
                "honest-but-curious server alone, honest bucket peers",
                noise * math.sqrt(secret_threshold(size)),
            ),
        ]

    def broken(self, settings: Settings, limits: SiteLimits) -> Iterator[tuple[str, str]]:
        """Buckets in which too few others hide the site."""
        if (size := settings.secure.bucket_size) < limits.least_bucket:
            yield "bucket-size", f"buckets of {size} are below {limits.least_bucket}"

    def page(self, limits: SiteLimits) -> Iterator[str]:
        """What a sum shows."""
        yield (
            "It is added up with those of other participants under one-time secret masks, so that "
            "the server sees only the sum over a group of at least "
            f"{limits.least_bucket}, never yours alone. If members of the group go silent on the "
            "way, the sum may be over fewer of them, but over more than half."
        )
