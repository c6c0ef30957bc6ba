"""What a data holder's own machine allows, what it has spent, and how to say so in plain words.

The installed package keeps to it whatever a server asks. Nothing here knows Flower or torch.
"""

from fedgrpo.settings.protocols.committee.members import fingerprint
from fedgrpo.site.account.costs import check_spending, rounds_left, spent_epsilon
from fedgrpo.site.account.mishaps import MishapFile
from fedgrpo.site.account.spending import Entry, SpendingFile
from fedgrpo.site.checks import broken_limits, check_round
from fedgrpo.site.declared import Declared, broken_declarations, declared_by
from fedgrpo.site.explain import explain
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
