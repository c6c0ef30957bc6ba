"""Who the four members are, and the keys that three of them share.

Component m of every shared value is held by all members but m. Whatever is random about it comes
from a key ``k_m`` that the same three members toss together, so that no member chooses it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedgrpo.ground.codec import Key
from fedgrpo.ground.crypto import KEY_BYTES, commit, derive, new_private_key, public_key
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.ground.files import is_open_to_others
from fedgrpo.secure.committee.steps import MEMBERS, Member, Step

_PROTOCOL = b"fedgrpo committee v1"


def keepers(component: int) -> tuple[int, ...]:
    """Members that hold a component: all but the one of its number."""
    return tuple(member for member in range(MEMBERS) if member != component)


def context(session: bytes, purpose: str, *parties: int) -> bytes:
    """Bind a key, hash or signature to protocol, session, purpose and parties.

    A session is 32 bytes and a purpose has no digits at its end, so no two calls collide.
    """
    return b"|".join((_PROTOCOL, session, purpose.encode(), *(b"%d" % p for p in parties))) + b"|"


@dataclass(frozen=True)
class MemberKeys:
    """A member's long-term public keys, 32 bytes each, pinned by everybody else."""

    signing: Key
    """Ed25519: the key of the member's TLS certificate."""
    agreement: Key
    """X25519: what clients and relayed messages are encrypted to."""


@dataclass(frozen=True)
class Identity:
    """A member's long-term private keys, 32 bytes each. Keep them in a file of mode 0600."""

    signing: bytes = field(repr=False)
    agreement: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Identity:
        """Draw an identity from the operating system."""
        return cls(signing=os.urandom(KEY_BYTES), agreement=new_private_key())

    @property
    def public(self) -> MemberKeys:
        """The public keys, to be pinned by clients and other members."""
        signing = Ed25519PrivateKey.from_private_bytes(self.signing)
        return MemberKeys(
            signing=signing.public_key().public_bytes_raw(), agreement=public_key(self.agreement)
        )

    def to_bytes(self) -> bytes:
        """Concatenate both, 64 bytes."""
        return self.signing + self.agreement

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """Invert :meth:`to_bytes`; raises ProtocolError if ``data`` is not 64 bytes."""
        if len(data) != 2 * KEY_BYTES:
            raise ProtocolError(
                f"a member's identity has {2 * KEY_BYTES} bytes, this one {len(data)}",
                cure="point to the file that this member's identity was written to",
            )
        return cls(data[:KEY_BYTES], data[KEY_BYTES:])

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Read a member's file; raises ProtocolError if it cannot be read, or others may."""
        try:
            if is_open_to_others(path):
                raise ProtocolError(
                    f"others than its owner may read {path}", cure=f"run chmod 600 {path}"
                )
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise ProtocolError(
                f"committee key {path} cannot be read ({type(error).__name__})",
                cure=f"make it with 'fedgrpo committee-key {path}'",
            ) from None


@dataclass(frozen=True)
class Committee:
    """The four members and what they agree on, public and the same everywhere; raises ProtocolError
    if there are not four members, a key has a wrong length or serves twice, or an address has no
    port.

    Parameters
    ----------
    members:
        Public keys in the order of the members' numbers.
    addresses:
        ``host:port`` of each, for direct connections; empty texts where messages are relayed.
    settings:
        SHA-256 of the settings and code version that all must share, 32 bytes.
    """

    members: tuple[MemberKeys, ...]
    addresses: tuple[str, ...]
    settings: bytes

    def __post_init__(self) -> None:
        keys = [key for member in self.members for key in (member.signing, member.agreement)]
        if len(self.members) != MEMBERS or len(self.addresses) != MEMBERS:
            raise _refusal(f"{len(self.members)} members, {len(self.addresses)} addresses")
        if any(len(key) != KEY_BYTES for key in (*keys, self.settings)):
            raise _refusal("a key or settings hash that is not 32 bytes")
        if len(set(keys)) != len(keys):
            raise _refusal("one key twice")
        for address in filter(None, self.addresses):
            host, _, port = address.rpartition(":")
            if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
                raise _refusal(f"the address {address!r}, which is no host:port")

    @property
    def digest(self) -> bytes:
        """SHA-256 over keys and settings, 32 bytes; addresses may change without harm."""
        keys = b"".join(member.signing + member.agreement for member in self.members)
        return hashlib.sha256(_PROTOCOL + keys + self.settings).digest()

    def session(self, run: str, round: int, *public: bytes) -> bytes:
        """Name one use of the committee, 32 bytes: every key and message is bound to it.

        Parameters
        ----------
        run, round:
            Never both used twice, unless ``public`` differs.
        public:
            32-byte hashes of what else all must agree on: the model, the roster of clients.
        """
        named = hashlib.sha256(run.encode()).digest() + b"%d|" % round
        return hashlib.sha256(self.digest + named + b"".join(public)).digest()


@dataclass(frozen=True)
class ComponentKeys:
    """One member's three component keys."""

    keys: Mapping[int, Key] = field(repr=False)
    """``{component: 32 bytes}`` for the three components that the member holds."""

    def for_session(self, session: bytes) -> ComponentKeys:
        """Derive fresh keys for one session by HKDF: no key stream is used in two rounds."""
        return ComponentKeys(
            {m: derive(key, context(session, "component key", m)) for m, key in self.keys.items()}
        )


def toss_keys(
    index: int,
    secret: bytes,
    session: bytes,
    keep: Callable[[Mapping[int, bytes]], None] | None = None,
) -> Member[ComponentKeys]:
    """Play one member's part in tossing the four component keys.

    Every keeper of component m contributes 32 bytes: first all commit (SHA-256), then all reveal,
    then all confirm that they hold the same. The key is HKDF of the three contributions.

    Adversary: one member is malicious, and channels between members are private and authenticated.

    * It learns nothing of ``k_index``, the key of the component that it does not hold: its keepers
      never send it anything about that.
    * It chooses nothing of the other three. Its contribution is fixed before it sees an honest one,
      so from each honest keeper's view the key is uniform. Telling two keepers two contributions
      gives two keys, which the confirmation notices.
    * It can refuse to reveal once it has seen the keys, and so make the others start again; it
      gains nothing. Repeated, a toss is the same one: an honest member contributes the same, and
      reveals only to peers that commit to what they committed to before it first revealed
      anything (``keep``). So another contribution fails at a keeper that has revealed; and where
      only one of the two other keepers of a key has, the two get different keys, which the
      confirmation notices.
    * Keys are tossed once for a committee and a run, ahead of anybody's input, and every round's
      keys are derived from them (:meth:`ComponentKeys.for_session`): no member picks the noise of a
      round by trying.

    Parameters
    ----------
    index:
        The member, 0 to 3.
    secret:
        32 random bytes from the operating system, or derived from such ones for this toss only: the
        whole of the member's randomness, so that it can be replayed.
    session:
        32 bytes: :meth:`Committee.session`. The same when the toss is repeated.
    keep:
        Called with ``{peer: 32 bytes}``, a digest of what each peer has committed to, before
        anything is revealed. It puts them on disk, and raises if others are there. Only a toss
        whose ``secret`` never serves again does without.

    Raises
    ------
    ProtocolError
        If a member's message is malformed, its contribution does not fit its commitment, or it
        holds another key.
    """
    held = [component for component in range(MEMBERS) if component != index]
    own = {m: derive(secret, context(session, "contribution", m, index)) for m in held}
    common = {peer: [m for m in held if m != peer] for peer in keepers(index)}

    def seal(m: int, member: int, value: bytes) -> bytes:
        return commit(value, context(session, "toss", m, member))

    def exchange(values: Mapping[int, bytes]) -> Member[dict[tuple[int, int], bytes]]:
        """Swap, with each peer, one value for each component held in common."""
        outgoing = {peer: b"".join(values[m] for m in common[peer]) for peer in common}
        received = yield Step(outgoing, frozenset(common))
        return {
            (m, peer): value
            for peer, parts in common.items()
            for m, value in zip(parts, _split(received[peer], len(parts), peer), strict=True)
        }

    committed = yield from exchange({m: seal(m, index, own[m]) for m in held})
    if keep is not None:
        sealed = {p: b"".join(committed[m, p] for m in ms) for p, ms in common.items()}
        keep({peer: hashlib.sha256(seals).digest() for peer, seals in sealed.items()})
    revealed = yield from exchange(own)
    for (m, peer), value in revealed.items():
        if seal(m, peer, value) != committed[m, peer]:
            raise _cheat(peer, f"its contribution to key {m} does not fit its commitment")
    keys = {}
    for m in held:
        parts = revealed | {(m, index): own[m]}
        joint = b"".join(parts[m, member] for member in keepers(m))
        keys[m] = derive(joint, context(session, "joint key", m))
    confirmed = yield from exchange({m: seal(m, index, keys[m]) for m in held})
    for (m, peer), value in confirmed.items():
        if seal(m, peer, keys[m]) != value:
            raise _cheat(peer, f"it holds another key {m}, or was told another contribution")
    return ComponentKeys(keys)


def _split(data: bytes, parts: int, peer: int) -> list[bytes]:
    if len(data) != parts * KEY_BYTES:
        raise _cheat(peer, f"it sent {len(data)} bytes where {parts * KEY_BYTES} belong")
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]


def _cheat(peer: int, problem: str) -> ProtocolError:
    return ProtocolError(
        f"tossing keys with committee member {peer}: {problem}",
        cure=f"toss again; if it recurs, have member {peer} checked or replaced",
    )


def _refusal(problem: str) -> ProtocolError:
    return ProtocolError(
        f"committee has {problem}",
        cure="describe four members with two 32-byte keys and a host:port address each",
    )
