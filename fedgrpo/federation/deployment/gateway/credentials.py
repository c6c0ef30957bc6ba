"""Who asks: a node's key, and its signature on the time.

Adversary: anybody without the private key. What is signed is the time alone, so TLS must keep a
request whole; and a signature serves once, so that one which was seen somewhere is of no use.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fedgrpo.federation.deployment.flower_internals.control import AGE_S, node_key, verified
from fedgrpo.federation.deployment.gateway.refused import RefusedError

KEY, TIME, SIGNATURE = b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"
_LONGEST = 1024
_CURE = "start the node with the key that the operator registered: key = ... in site.toml"


@dataclass(frozen=True)
class Credentials:
    """What a node shows.

    Attributes
    ----------
    key:
        Its public key.
    time:
        ISO 8601, as it was signed.
    signature:
        ECDSA over the time.
    """

    key: bytes
    time: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The key as the book of sites has it."""
        return self.key.decode("latin-1")

    @property
    def once(self) -> tuple[bytes, int]:
        """What no two requests share: the key, and the nonce of its signature.

        Not the signature's bytes: anybody can make (r, -s) of (r, s). Not the time: two threads of
        a node may sign the same microsecond.
        """
        return self.key, decode_dss_signature(self.signature)[0]


def shown(headers: Mapping[bytes, bytes]) -> Credentials:
    """Read a request's credentials; raises RefusedError if it has none that can be read."""
    try:
        key, time, signature = (headers[name] for name in (KEY, TIME, SIGNATURE))
        if max(map(len, (key, time, signature))) > _LONGEST:
            raise ValueError
        return Credentials(b64decode(key, validate=True), time, b64decode(signature, validate=True))
    except (KeyError, ValueError, binascii.Error):
        raise RefusedError(401, "this request shows no node's key", cure=_CURE) from None


def check(shown: Credentials, now: datetime) -> None:
    """Refuse a key that no node has, and a signature that is wrong, or of another time; raises
    RefusedError.

    Parameters
    ----------
    shown:
        By the node.
    now:
        The server's time, with its zone.
    """
    try:
        age = (now - datetime.fromisoformat(shown.time.decode("ascii"))).total_seconds()
    except (ValueError, TypeError):
        raise RefusedError(401, "the signed time is no time", cure=_CURE) from None
    if (key := node_key(shown.key)) is None:
        raise RefusedError(
            401,
            "this key is of a kind that Flower does not take",
            cure="use fedgrpo join, which makes one; or ssh-keygen -t ecdsa -b 384",
        )
    if not verified(key, shown.time, shown.signature):
        raise RefusedError(401, "the signature is not by the key that is shown", cure=_CURE)
    if not AGE_S[0] < age < AGE_S[1]:
        how = f"{-age:.0f} s fast" if age < 0 else f"{age:.0f} s slow"
        raise RefusedError(
            401,
            f"the node's clock is {how}, or its request was on the way as long",
            cure="switch time synchronisation on: timedatectl set-ntp true",
        )
