"""How soon Flower looks again for an object that is on its way."""

from __future__ import annotations

import logging

LOG = logging.getLogger(__name__)

SOON_S = 0.03
"""The first time; twice as long each time after that. Flower's own is 1 s: a message is told of
before its objects have come, so each one is met with such a wait on each hop.
"""
_NAMED = "initial_backoff"


def see_soon() -> bool:
    """Have this process look soon.

    Returns
    -------
    bool
        False, and nothing is changed, where Flower is not the one that this was written for.
    """
    from flwr.supercore.inflatable.inflatable_utils import pull_objects

    defaults = pull_objects.__kwdefaults__
    if defaults is None or _NAMED not in defaults:
        LOG.warning("this Flower waits for objects in another way than 1.41: rounds take longer")
        return False
    defaults[_NAMED] = SOON_S
    return True
