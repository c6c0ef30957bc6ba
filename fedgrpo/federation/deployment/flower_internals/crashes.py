"""What a SuperNode does about a message whose process was killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MethodType
from typing import Any

LOG = logging.getLogger(__name__)

_EXPIRED = "_on_task_tokens_expired"


def answer_for_killed(state: Any) -> bool:
    """Have a SuperNode answer with an error, a minute later, wherever the process of a message was
    killed.

    Flower does so for a message that the process had taken and not yet answered. Before that, and
    while the objects of its answer come, the SuperNode would wait for ever, and the site take part
    in nothing any more.

    Parameters
    ----------
    state:
        Of the SuperNode: ``flwr.supernode.nodestate.InMemoryNodeState``.

    Returns
    -------
    bool
        False, and nothing is changed, where Flower is not the one that this was written for.
    """
    theirs = getattr(state, _EXPIRED, None)
    if theirs is None or not hasattr(state, "msg_store"):
        LOG.warning(
            "this Flower keeps tasks in another way than 1.41: a site whose process is killed may "
            "have to be started again",
            extra={"code": "flower-unknown"},
        )
        return False

    def ours(state: Any, tasks: Sequence[Any]) -> None:
        runs = {task.run_id for task in tasks}
        with state.lock_msg_store:
            kept = [e for e in state.msg_store.values() if e.message.metadata.run_id in runs]
            for entry in kept:
                if not entry.message.metadata.reply_to_message_id:
                    entry.is_retrieved = True
                elif _lacks_objects(state.object_store, entry.message.metadata.message_id):
                    # Whoever waits for them finds now that they are gone.
                    state.object_store.delete(entry.message.metadata.message_id)
        theirs(tasks)

    setattr(state, _EXPIRED, MethodType(ours, state))
    return True


def _lacks_objects(store: Any, message: str) -> bool:
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.object_store import NoObjectInStoreError

    try:
        tree = store.get_object_tree(message)
    except NoObjectInStoreError:  # It was sent just now.
        return False
    return any(not store.get(each.object_id) for each in iterate_object_tree(tree))
