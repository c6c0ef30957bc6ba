"""A client deals its input to the members, who open it against what the client signed.

A payload of 64-bit words is the XOR of four components; component m goes to all members but m.
Three are streams from 32-byte secrets and the last is full length, so that a client uploads its
payload once: the full component is encrypted under a secret of its own, and that secret is dealt
like the other three.

Every length depends on the number of words and of clients alone, never on a value. Any payload is
as good as any other here: whatever a client deals as its clip bit *is* one bit, which is why the
bit and the metrics ride in the payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from fedgrpo.ground.crypto import (
    KEY_BYTES,
    NONCE_BYTES,
    SEAL_BYTES,
    agree,
    derive,
    public_key,
    seal,
    stream_words,
    unseal,
)
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import Committee, context
from fedgrpo.secure.committee.steps import MEMBERS

FULL = MEMBERS - 1
"""The component that is dealt at full length; the others are streams."""
_SIGNATURE_BYTES = 64
STATEMENT_BYTES = (1 + MEMBERS) * KEY_BYTES
"""Length of what a client signs."""
_ENVELOPE_BYTES = NONCE_BYTES + (MEMBERS - 1) * 2 * KEY_BYTES + SEAL_BYTES

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Share:
    """One client's share at one member."""

    statement: bytes
    """What the client signed: its ephemeral public key and four salted hashes, 160 bytes."""
    openings: Mapping[int, bytes] = field(repr=False)
    """``{component: 32-byte salt and the component's bytes}``, for the member's three."""

    def component(self, m: int) -> Words:
        """Component m; uint64, shape (words,)."""
        words = np.frombuffer(self.openings[m][KEY_BYTES:], dtype="<u8")
        return words.astype(np.uint64, copy=False)


def deal(
    payload: Words, committee: Committee, session: bytes, client: int, signing: bytes
) -> tuple[bytes, ...]:
    """Split a client's payload into one message for each member.

    Adversary: whoever carries the messages, and any one member, see three uniformly random
    components of four and salted hashes, hence nothing about the payload (AES-CTR, AES-GCM, X25519
    and SHA-256 being what they should). Two members together see it. The client must have
    pinned the committee: encrypting to keys that the server made up would show the server all.

    Messages are bound to committee, settings and session by the keys that encrypt them and by the
    signature, so nobody can reuse them elsewhere, or pass them off as another client's.

    All randomness is derived from the signing key, the session and the payload (HKDF, a
    pseudorandom function): dealing the same payload again in the same session makes the same
    shares, which tells nothing new, and any other payload or session makes unrelated ones. Raises
    ProtocolError if a member's public key has low order.

    Parameters
    ----------
    payload:
        uint64, shape (words,).
    committee:
        As pinned at the client.
    session:
        :meth:`Committee.session` of this round.
    client:
        The client's number in the round's roster.
    signing:
        The client's Ed25519 private key, 32 bytes: secret, and of this round only.

    Returns
    -------
    tuple[bytes, ...]
        For members 0 to 3: the first three of ``8 * words + 472`` bytes, the last of 444.
    """
    payload = np.asarray(payload, dtype=np.uint64)
    root = _randomness(signing, session, client, payload)
    secrets = [derive(root, context(session, "secret", m)) for m in range(MEMBERS)]
    salts = [derive(root, context(session, "salt", m)) for m in range(MEMBERS)]
    components = [_stream(secrets[m], session, client, m, payload.size) for m in range(FULL)]
    components.append(payload ^ np.bitwise_xor.reduce(components))
    ephemeral = derive(root, context(session, "ephemeral key"))
    hashes = [
        _hash(session, client, m, salt + _to_bytes(component))
        for m, (salt, component) in enumerate(zip(salts, components, strict=True))
    ]
    statement = b"".join((public_key(ephemeral), *hashes))
    signature = Ed25519PrivateKey.from_private_bytes(signing).sign(
        statement_digest(session, client, statement)
    )
    body = seal(*_body_key(secrets[FULL], session, client, _to_bytes(components[FULL])))
    messages = []
    for member in range(MEMBERS):
        name = context(session, "envelope", client, member)
        key = agree(ephemeral, committee.members[member].agreement, name)
        content = b"".join(secrets[m] + salts[m] for m in range(MEMBERS) if m != member)
        envelope = seal(key, content, name)
        messages.append(statement + signature + envelope + (body if member != FULL else b""))
    return tuple(messages)


def open_share(
    index: int,
    agreement: bytes,
    session: bytes,
    client: int,
    verifying: bytes,
    message: bytes,
    words: int,
) -> Share | None:
    """Open what a client dealt to member ``index``; None unless all of it fits what it signed.

    Adversary: the client, or whoever carried the message, made it up. Nothing of it is used before
    the client's signature and the salted hash of each component have been checked.

    Parameters
    ----------
    index, agreement:
        The member and its X25519 private key.
    verifying:
        The client's Ed25519 public key, 32 bytes, from the round's roster.
    message:
        From :func:`deal`.
    words:
        Length of the payload.
    """
    body_bytes = NONCE_BYTES + 8 * words + SEAL_BYTES if index != FULL else 0
    lengths = (STATEMENT_BYTES, _SIGNATURE_BYTES, _ENVELOPE_BYTES, body_bytes)
    if len(message) != sum(lengths):
        return None
    statement, signature, envelope, body = cut(message, lengths)
    if not _signed(verifying, signature, statement_digest(session, client, statement)):
        return None
    name = context(session, "envelope", client, index)
    try:
        content = unseal(agree(agreement, statement[:KEY_BYTES], name), envelope, name)
    except ProtocolError:  # an ephemeral key of low order
        return None
    if content is None:
        return None
    openings = {}
    parts = cut(content, (KEY_BYTES,) * 2 * (MEMBERS - 1))
    held = [m for m in range(MEMBERS) if m != index]
    for m, secret, salt in zip(held, parts[0::2], parts[1::2], strict=True):
        if m != FULL:
            openings[m] = salt + _to_bytes(_stream(secret, session, client, m, words))
        elif (component := unseal(*_body_key(secret, session, client, body))) is not None:
            openings[m] = salt + component
    fits = all(
        m in openings and is_opening(session, client, statement, m, openings[m]) for m in held
    )
    return Share(statement, openings) if fits else None


def statement_digest(session: bytes, client: int, statement: bytes) -> bytes:
    """SHA-256 that stands for a client's statement in one session, 32 bytes."""
    return hashlib.sha256(context(session, "statement", client) + statement).digest()


def is_opening(session: bytes, client: int, statement: bytes, m: int, opening: bytes) -> bool:
    """Whether salt and component m are those that the client's statement has the hash of."""
    stated = statement[(1 + m) * KEY_BYTES :][:KEY_BYTES]
    return _hash(session, client, m, opening) == stated


def _randomness(signing: bytes, session: bytes, client: int, payload: Words) -> bytes:
    """Draw what all of a dealing's randomness is derived from, 32 bytes."""
    dealt = hashlib.sha256(_to_bytes(payload)).digest()
    return derive(signing, context(session, "randomness", client) + dealt)


def _hash(session: bytes, client: int, m: int, opening: bytes) -> bytes:
    """Commit to a component: hiding, as its 32-byte salt is random, and binding."""
    return hashlib.sha256(context(session, "component", client, m) + opening).digest()


def _stream(secret: bytes, session: bytes, client: int, m: int, words: int) -> Words:
    key = derive(secret, context(session, "stream", client, m))
    stream = stream_words(key, 2 * words).astype("<u4", copy=False).view("<u8")
    return stream.astype(np.uint64, copy=False)


def _body_key(
    secret: bytes, session: bytes, client: int, body: bytes
) -> tuple[bytes, bytes, bytes]:
    """Arguments under which the full component is sealed or, given the sealed one, unsealed."""
    name = context(session, "body", client)
    return derive(secret, name), body, name


def _signed(verifying: bytes, signature: bytes, digest: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(verifying).verify(signature, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Cut bytes into consecutive parts of these lengths."""
    ends = accumulate(lengths)
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _to_bytes(words: Words) -> bytes:
    return words.astype("<u8", copy=False).tobytes()
