"""Where a node's keys as a committee member come from."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ConfigRecord, Context

from fedgrpo.errors import ProtocolError
from fedgrpo.federation.records import config_record, scalar
from fedgrpo.secure.committee import Identity

KEY_FILE = "committee-key"
"""Key of a node's own configuration: the file with a member's private keys, of mode 0600."""

_IDENTITY = "fedgrpo.identity"


def is_simulated(context: Context) -> bool:
    """Whether this node is one of a simulation."""
    return "partition-id" in context.node_config


def can_be_member(context: Context) -> bool:
    """Whether this node has keys as a member: from its file, or drawn because it is simulated."""
    return KEY_FILE in context.node_config or is_simulated(context)


def member_identity(context: Context) -> Identity:
    """Return a node's keys as a member. A simulated one draws them once a run.

    Raises
    ------
    ProtocolError
        If the node has none, or they cannot be read.
    """
    if KEY_FILE in context.node_config:
        return _read(Path(str(context.node_config[KEY_FILE])))
    if not is_simulated(context):
        raise ProtocolError(
            "this node has no keys as a committee member",
            cure=f"make some with 'fedgrpo committee-key FILE' and start it with {KEY_FILE}",
        )
    if _IDENTITY not in context.state:
        context.state[_IDENTITY] = ConfigRecord({"keys": Identity.new().to_bytes()})
    return Identity.from_bytes(scalar(config_record(context.state, _IDENTITY), "keys", bytes))


def _read(path: Path) -> Identity:
    try:
        if path.stat().st_mode & 0o077:
            raise ProtocolError(
                f"others than its owner may read {path}", cure=f"run chmod 600 {path}"
            )
        return Identity.from_bytes(path.read_bytes())
    except OSError as error:
        raise ProtocolError(
            f"committee key {path} cannot be read ({type(error).__name__})",
            cure=f"make it with 'fedgrpo committee-key {path}'",
        ) from None
