"""How soon Flower looks again for an object that is on its way."""

from __future__ import annotations

import logging

LOG = logging.getLogger(__name__)

SOON_S = 0.03
"""The first time; twice as long each time after that. Flower's own is 1 s: a message is told of
before its objects have come, so each one is met with such a wait on each hop.
"""
GIVE_UP_S = 300.0
"""In which the objects of a message must come from the SuperNode beside. Flower's own is 500 looks,
83 minutes: a run that is stopped while a SuperNode fetches a message leaves a task whose objects
never come, and no other message of the site would be answered meanwhile.
"""
_NAMED, _LONGEST = "initial_backoff", "max_time"


def see_soon(*, give_up: bool = False) -> bool:
    """Have this process look soon.

    Parameters
    ----------
    give_up:
        Whether to look no longer than ``GIVE_UP_S`` for a message's objects.

    Returns
    -------
    bool
        False, and nothing is changed, where Flower is not the one that this was written for.
    """
    from flwr.supercore.inflatable import inflatable_utils as utils

    # The second one hands its own defaults to the first.
    pulling = (utils.pull_objects, utils.pull_and_inflate_object_from_tree)
    defaults = [function.__kwdefaults__ or {} for function in pulling]
    if not all({_NAMED, _LONGEST} <= each.keys() for each in defaults):
        LOG.warning(
            "this Flower waits for objects in another way than 1.41: rounds take longer",
            extra={"code": "flower-unknown"},
        )
        return False
    for each in defaults:
        each[_NAMED] = SOON_S
        if give_up:
            each[_LONGEST] = GIVE_UP_S
    return True
