"""Rules over bucket means that withstand attackers: plain functions over a (B, d) array."""

from fedgrpo.robust import coordinates, distances, norm_checked
from fedgrpo.robust.rules import (
    Public,
    combine,
    declare_rule,
    describe,
    register_rule,
    sensitivity,
)

__all__ = [
    "Public",
    "combine",
    "coordinates",
    "declare_rule",
    "describe",
    "distances",
    "norm_checked",
    "register_rule",
    "sensitivity",
]
