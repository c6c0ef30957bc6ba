"""What a data holder's own machine allows, what it has spent, and how to say so in plain words.

The installed package keeps to it whatever a server asks. Nothing here knows Flower or torch.
"""

from fedgrpo.policy.account import check_spending, rounds_left, spent_epsilon
from fedgrpo.policy.checks import broken_limits, check_round
from fedgrpo.policy.committee import fingerprint
from fedgrpo.policy.explain import explain
from fedgrpo.policy.limits import Policy, UnitLimits
from fedgrpo.policy.refusals import CURES, Refusal
from fedgrpo.policy.site import Request, Site, find_policy, site_of
from fedgrpo.policy.spending import Entry, History, SpendingFile

__all__ = [
    "CURES",
    "Entry",
    "History",
    "Policy",
    "Refusal",
    "Request",
    "Site",
    "SpendingFile",
    "UnitLimits",
    "broken_limits",
    "check_round",
    "check_spending",
    "explain",
    "find_policy",
    "fingerprint",
    "rounds_left",
    "site_of",
    "spent_epsilon",
]
