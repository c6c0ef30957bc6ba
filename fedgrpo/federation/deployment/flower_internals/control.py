"""Keys of nodes, and what a SuperLink is asked and told: bytes in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    public_key_to_bytes,
    sign_message,
    verify_signature,
)

AGE_S = (-SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
"""How many seconds a signed time may be in the future, as a negative number, and in the past."""
LIST_NODES = b"/v1/control/list-nodes"
REGISTER_NODE, UNREGISTER_NODE = b"/v1/control/register-node", b"/v1/control/unregister-node"
LIST_RUNS, STOP_RUN = b"/v1/control/list-runs", b"/v1/control/stop-run"


def verified(public_key: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether a node's key signed this."""
    try:
        return bool(verify_signature(bytes_to_public_key(public_key), signed, signature))
    except (ValueError, TypeError):
        return False


def public_bytes(private_key: Any) -> bytes:
    """A node's public key as it travels."""
    return bytes(public_key_to_bytes(private_key.public_key()))


def sign(private_key: Any, message: bytes) -> tuple[bytes, bytes]:
    """A node's public key as it travels, and its signature."""
    return public_bytes(private_key), sign_message(private_key, message)


def list_nodes() -> bytes:
    """Body of the question which nodes are registered."""
    return bytes(ListNodesRequest().SerializeToString())


@dataclass(frozen=True)
class KnownNode:
    """A node as the SuperLink has it.

    Attributes
    ----------
    number:
        Its id.
    online:
        Whether it has been heard of in time.
    until:
        Unix time, in seconds, until which it was taken to be there; 0 if it never was.
    """

    number: int
    online: bool
    until: float


def nodes_by_key(body: bytes) -> dict[bytes, KnownNode]:
    """Read the answer: registered nodes by their public keys."""
    nodes = ListNodesResponse.FromString(body).nodes_info
    return {
        node.public_key: KnownNode(node.node_id, node.status == "online", node.online_until)
        for node in nodes
        if node.status != "unregistered"
    }


def is_node_key(public_key: bytes) -> bool:
    """Whether a SuperLink would register this key."""
    from flwr.supercore.primitives.asymmetric import uses_nist_ec_curve

    try:
        return bool(uses_nist_ec_curve(bytes_to_public_key(public_key)))
    except (ValueError, TypeError, AttributeError):
        return False


def register_node(public_key: bytes) -> bytes:
    """Body of the request to let a key in."""
    return bytes(RegisterNodeRequest(public_key=public_key).SerializeToString())


def unregister_node(number: int) -> bytes:
    """Body of the request to let a node in no more. Its key never comes back."""
    return bytes(UnregisterNodeRequest(node_id=number).SerializeToString())


def list_runs() -> bytes:
    """Body of the question how the newest runs stand."""
    return bytes(ListRunsRequest().SerializeToString())


def run_ended(body: bytes, number: int) -> bool:
    """Read the answer: whether the run is over, or is not among the newest."""
    runs = ListRunsResponse.FromString(body).run_dict
    return number not in runs or runs[number].status.status == "finished"


def stop_run(number: int) -> bytes:
    """Body of the request to end a run."""
    return bytes(StopRunRequest(run_id=number).SerializeToString())


@dataclass(frozen=True)
class Pushed:
    """What a node pushes.

    Attributes
    ----------
    claimed:
        Ids of nodes that the messages say they come from.
    single:
        Whether it is one message and the list of its objects, as Flower's nodes push them.
    body:
        The same again, written anew: whoever reads it reads what was read here.
    """

    claimed: frozenset[int]
    single: bool
    body: bytes


def read_pushed(body: bytes) -> Pushed:
    """Read pushed messages; raises ValueError if they are none."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        raise ValueError("no pushed messages") from None
    # Added up as they come: one that is no number would spoil the sum for all.
    del request.clientapp_runtime_list[:]
    sources = {message.metadata.src_node_id for message in request.messages_list}
    claimed = frozenset(sources | {request.node.node_id})
    single = len(request.messages_list) == len(request.message_object_trees) == 1
    return Pushed(claimed, single, request.SerializeToString())
