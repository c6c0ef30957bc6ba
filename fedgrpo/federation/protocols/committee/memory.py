"""What a node keeps of a committee between messages: signing key, committee, a member's work."""

from __future__ import annotations

from flwr.app import ConfigRecord, RecordDict

from fedgrpo.federation.state.memory import ROUND
from fedgrpo.federation.wire.records import config_record, scalar
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import MemberKeys

WORK = f"{ROUND}work"
"""What the names of a committee member's records of one round begin with."""

_SIGNING, _PINNED = f"{ROUND}signing", "fedgrpo.committee"


def keep_signing(state: RecordDict, signing: bytes) -> None:
    """Keep the private key that signs how the round's release is dealt, 32 bytes."""
    state[_SIGNING] = ConfigRecord({"key": signing})


def take_signing(state: RecordDict) -> bytes:
    """Return the round's signing key, once; raises ProtocolError if there is none."""
    key = scalar(config_record(state, _SIGNING), "key", bytes)
    del state[_SIGNING]
    return key


def pin_committee(state: RecordDict, members: tuple[MemberKeys, ...]) -> None:
    """Accept a committee that no settings list: the same for a whole run.

    Raises
    ------
    ProtocolError
        If it is another one.
    """
    keys = before = b"".join(key.signing + key.agreement for key in members)
    if _PINNED in state:
        before = scalar(config_record(state, _PINNED), "keys", bytes)
    if before != keys:
        raise ProtocolError(
            "the server names another committee than earlier in this run",
            cure="list the members in aggregation.committee and start a new run",
        )
    state[_PINNED] = ConfigRecord({"keys": keys})
