"""The only paths that lead inside, and how much may be sent to each."""

from __future__ import annotations

from collections.abc import Mapping

_SMALL = 1 << 16
_LISTS = 1 << 18
_OBJECTS = 1 << 27

PUSH = b"/v1/fleet/push-messages"
"""Where nodes say whom a message comes from."""

FLEET: Mapping[bytes, int] = {
    b"/v1/fleet/register-node": _SMALL,
    b"/v1/fleet/activate-node": _SMALL,
    b"/v1/fleet/deactivate-node": _SMALL,
    b"/v1/fleet/unregister-node": _SMALL,
    b"/v1/fleet/send-node-heartbeat": _SMALL,
    b"/v1/fleet/pull-messages": _SMALL,
    b"/v1/fleet/get-run": _SMALL,
    b"/v1/fleet/get-fab": _SMALL,
    b"/v1/fleet/pull-object": _SMALL,
    b"/v1/fleet/confirm-message-received": _SMALL,
    PUSH: _LISTS,
    b"/v1/fleet/push-object": _OBJECTS,
}
"""Most bytes of a request's body, by its raw path. Flower cuts arrays into objects of 5 MiB; a push
of messages lists their objects, some 70 bytes each, and the SuperLink serves nobody else while it
writes them down: 3700 objects stand for 18 GB of arrays."""

HELLO, INVITED, JOIN, LEAVE = b"/hello", b"/invited", b"/join", b"/leave"
