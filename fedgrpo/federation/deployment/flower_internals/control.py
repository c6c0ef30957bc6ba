"""Keys of nodes, and what a SuperLink is asked and told: bytes in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
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
    uses_nist_ec_curve,
    verify_signature,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

AGE_S = (-SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
"""How many seconds a signed time may be in the future, as a negative number, and in the past."""
LIST_NODES = b"/v1/control/list-nodes"
REGISTER_NODE, UNREGISTER_NODE = b"/v1/control/register-node", b"/v1/control/unregister-node"
LIST_RUNS, STOP_RUN = b"/v1/control/list-runs", b"/v1/control/stop-run"


def node_key(public_key: bytes) -> ec.EllipticCurvePublicKey | None:
    """Read a public key as it travels; None if a SuperLink would not register it, or it is written
    in another way than :func:`public_bytes` writes it: a key has one text, so that who knows it
    again need only compare.

    Adversary: whoever sends it.
    """
    try:
        key = bytes_to_public_key(public_key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and uses_nist_ec_curve(key)):
        return None
    return key if public_key_to_bytes(key) == public_key else None


def verified(key: ec.EllipticCurvePublicKey, signed: bytes, signature: bytes) -> bool:
    """Whether a node's key signed this."""
    return bool(verify_signature(key, signed, signature))


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
