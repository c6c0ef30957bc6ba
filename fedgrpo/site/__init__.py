"""What a data holder's own machine allows, what it has spent, and how to say so in plain words.

The installed package keeps to it whatever a server asks. Nothing here knows Flower or torch. Names
are resolved when they are first used: a node's supervisor needs the folder alone, and no numerics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedgrpo.settings.protocols.committee.members import fingerprint
    from fedgrpo.site.account.costs import check_spending, rounds_left, spent_epsilon
    from fedgrpo.site.account.mishaps import MishapFile
    from fedgrpo.site.account.spending import Entry, SpendingFile
    from fedgrpo.site.checks import broken_limits, check_round
    from fedgrpo.site.declared import Declared, broken_declarations, declared_by
    from fedgrpo.site.explanation import explain
    from fedgrpo.site.limits import Policy
    from fedgrpo.site.refusals import CURES, Refusal, refused
    from fedgrpo.site.site import Request, Site, is_simulated, site_of

__all__ = [
    "CURES",
    "Declared",
    "Entry",
    "MishapFile",
    "Policy",
    "Refusal",
    "Request",
    "Site",
    "SpendingFile",
    "broken_declarations",
    "broken_limits",
    "check_round",
    "check_spending",
    "declared_by",
    "explain",
    "fingerprint",
    "is_simulated",
    "refused",
    "rounds_left",
    "site_of",
    "spent_epsilon",
]

_HOMES = {
    "CURES": "fedgrpo.site.refusals",
    "Declared": "fedgrpo.site.declared",
    "Entry": "fedgrpo.site.account.spending",
    "MishapFile": "fedgrpo.site.account.mishaps",
    "Policy": "fedgrpo.site.limits",
    "Refusal": "fedgrpo.site.refusals",
    "Request": "fedgrpo.site.site",
    "Site": "fedgrpo.site.site",
    "SpendingFile": "fedgrpo.site.account.spending",
    "broken_declarations": "fedgrpo.site.declared",
    "broken_limits": "fedgrpo.site.checks",
    "check_round": "fedgrpo.site.checks",
    "check_spending": "fedgrpo.site.account.costs",
    "declared_by": "fedgrpo.site.declared",
    "explain": "fedgrpo.site.explanation",
    "fingerprint": "fedgrpo.settings.protocols.committee.members",
    "is_simulated": "fedgrpo.site.site",
    "refused": "fedgrpo.site.refusals",
    "rounds_left": "fedgrpo.site.account.costs",
    "site_of": "fedgrpo.site.site",
    "spent_epsilon": "fedgrpo.site.account.costs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
