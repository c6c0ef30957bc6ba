"""The member's half of bucketed secure aggregation: four messages, and the server knows one sum.

Double masking after Bonawitz et al. 2017 (doi 10.1145/3133956.3133982) on the complete graph of a
small bucket:

1. :attr:`MaskingClient.public_keys`: fresh X25519 keys and a commitment to a self-mask seed.
2. :meth:`MaskingClient.share`: Shamir shares of seed and masking key for each peer, encrypted.
3. :meth:`MaskingClient.mask`: the vector under its self mask and a pairwise mask for each peer.
4. :meth:`MaskingClient.reveal`: shares of survivors' seeds or of dropped members' keys, never both.

Covered: an honest-but-curious server that sees all messages, together with up to ``threshold - 1``
members of the bucket, learns the sum over the other survivors and nothing else about their vectors.

Not covered by masking alone: an active server. It can hand out public keys of its own (man in the
middle), fill the bucket around a victim with nodes of its own, or tell members different stories
about who dropped out; the last unmasks a victim with the help of ``2 * threshold - members``
colluding peers, which in a bucket of three is one. Nor is it covered that dropouts shrink a sum: it
may be over as few as ``threshold`` survivors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground import crypto
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure import shamir
from fedgrpo.secure.masks import blocks_of, masked_sum, pairwise_mask, self_mask
from fedgrpo.secure.roster import (
    PublicKeys,
    Revealed,
    Roster,
    check_roster,
    commitment_context,
    refusal,
)
from fedgrpo.secure.state import MemberState, Secrets

__all__ = ["MaskingClient", "PublicKeys", "Revealed", "Roster"]


class MaskingClient:
    """One member in one round, good for one masked vector and one answer.

    Stages are keys, shared, masked, done. A call out of order, or for another run, round or bucket,
    is refused and changes nothing. A request of this round that breaks the protocol is refused and
    ends the member's part: its secrets are wiped. Save the state (:meth:`to_bytes`) after every
    call, refused ones too, and before the reply leaves the node: a state that is rolled back would
    answer twice.

    Made by :meth:`open` or :meth:`from_bytes`.
    """

    def __init__(self, state: MemberState) -> None:
        self._state = state

    def __repr__(self) -> str:
        s = self._state
        return f"MaskingClient(run {s.run_id}, round {s.round}, node {s.node_id}, stage {s.stage})"

    @property
    def public_keys(self) -> PublicKeys:
        """What this member tells everyone, at stage keys."""
        return self._state.public_keys

    @classmethod
    def open(
        cls, run_id: int, round: int, node_id: int, minimum: int, *, order: bytes
    ) -> MaskingClient:
        """Draw keys and seed for one round; raises ProtocolError if ``minimum`` is below 2.

        Parameters
        ----------
        run_id, round, node_id:
            What this member's messages are bound to.
        minimum:
            The site's own least number of members in a roster, at least 2.
        order:
            SHA-256 of what this member was ordered to compute, 32 bytes. It joins no bucket with
            another one: a server that orders one member to compute something else could tell its
            vector from the sum.
        """
        if minimum < 2:
            raise ProtocolError(
                f"a minimum of {minimum} members hides nobody", cure="set it to at least 3"
            )
        secrets = Secrets(
            seed=os.urandom(crypto.KEY_BYTES),
            sharing_key=crypto.new_private_key(),
            masking_key=crypto.new_private_key(),
        )
        context = commitment_context(run_id, round, node_id)
        keys = PublicKeys(
            sharing=crypto.public_key(secrets.sharing_key),
            masking=crypto.public_key(secrets.masking_key),
            seed_commitment=crypto.commit(secrets.seed, context),
        )
        return cls(MemberState(run_id, round, node_id, minimum, order, keys, secrets))

    def share(self, roster: Roster) -> dict[int, bytes]:
        """Deal shares of the self-mask seed and of the masking key.

        Parameters
        ----------
        roster:
            The bucket as the server announces it. What a member cannot check is whether its peers'
            keys really are theirs: a server that substitutes its own reads everything dealt under
            them.

        Returns
        -------
        dict[int, bytes]
            ``{peer: ciphertext}``, 94 bytes each, which only that peer can read.

        Raises
        ------
        ProtocolError
            Out of order, of another run or round, or the roster is malformed, smaller than the
            site's minimum, of another order than this member's, without this member, with other
            keys for it, or with a key of low order.
        """
        state = self._at("keys", roster.run_id, roster.round)
        with self._or_wipe():
            self._check_own_place(roster)
            secrets, count = state.secrets, len(roster.members)
            seeds = shamir.split_secret(secrets.seed, roster.threshold, count)
            keys = shamir.split_secret(secrets.masking_key, roster.threshold, count)
            sealed: dict[int, bytes] = {}
            for peer, peer_keys, seed, key in zip(
                roster.members, roster.keys, seeds, keys, strict=True
            ):
                context = roster.context("share", state.node_id, peer)
                if peer == state.node_id:
                    secrets.seed_shares[peer] = seed
                    continue
                # Only to refuse a low-order masking key before anything is dealt in its bucket.
                crypto.agree(secrets.masking_key, peer_keys.masking, context)
                common = crypto.agree(secrets.sharing_key, peer_keys.sharing, context)
                sealed[peer] = crypto.seal(common, seed + key, context)
            state.roster, state.stage = roster, "shared"
        return sealed

    def mask(
        self, ciphertexts: Mapping[int, bytes], values: NDArray[np.uint32]
    ) -> NDArray[np.uint32]:
        """Hide a vector under the self mask and the masks agreed with every peer that shared.

        Afterwards the member itself holds nothing from which its own masks could be computed.

        Parameters
        ----------
        ciphertexts:
            ``{peer: its ciphertext for this member}``, of the peers that shared.
        values:
            uint32, shape (d,), d >= 1: see :func:`fedgrpo.secure.encoding.encode`.

        Returns
        -------
        NDArray[np.uint32]
            Shape (d,). Uniform to whoever lacks the seed or one pairwise key: to the server with up
            to ``threshold - 1`` colluding peers, as long as another honest peer shared.

        Raises
        ------
        ProtocolError
            Out of order, fewer than ``threshold`` sharers, a ciphertext from someone who is no peer
            or one that does not decrypt, or values of another type or shape.
        """
        state, roster = self._joined("shared")
        with self._or_wipe():
            self._check_values(values)
            self._check_sharers(ciphertexts, roster)
            secrets, me = state.secrets, state.node_id
            for peer, sealed in ciphertexts.items():
                shares = self._unseal(peer, sealed, roster)
                secrets.seed_shares[peer] = shares[: shamir.SHARE_BYTES]
                secrets.key_shares[peer] = shares[shamir.SHARE_BYTES :]
            masks = [self_mask(roster, me, secrets.seed)]
            masks += [pairwise_mask(roster, me, secrets.masking_key, p) for p in ciphertexts]
            masked = np.empty_like(values)
            for block in blocks_of(values.size):
                masked[block] = masked_sum([values[block]], masks)
            secrets.seed = secrets.sharing_key = secrets.masking_key = b""
            state.stage = "masked"
        return masked

    def reveal(
        self,
        run_id: int,
        round: int,
        bucket: int,
        survivors: Sequence[int],
        dropped: Sequence[int],
    ) -> Revealed:
        """Answer once with what unmasks the sum of the survivors, and forget everything.

        Whoever holds enough shares of both a member's seed and its key can unmask it. So a list in
        which anybody is survivor and dropped is refused, and so is every later request.

        Parameters
        ----------
        survivors, dropped:
            Sharers whose masked vector did or did not arrive; together exactly the sharers that
            this member saw.

        Returns
        -------
        Revealed
            Shares of the survivors' seeds and of the dropped members' masking keys.

        Raises
        ------
        ProtocolError
            Out of order, of another run, round or bucket, overlapping or incomplete lists, fewer
            than ``threshold`` survivors, or this member is not one of them.
        """
        self._at("masked", run_id, round)
        state, roster = self._joined("masked")
        if bucket != roster.bucket:
            raise self._refusal(f"asked about bucket {bucket}", f"ask for bucket {roster.bucket}")
        with self._or_wipe():
            self._check_lists(survivors, dropped, roster)
            answer = Revealed(
                {member: state.secrets.seed_shares[member] for member in survivors},
                {member: state.secrets.key_shares[member] for member in dropped},
            )
        self.wipe()
        return answer

    def to_bytes(self) -> bytes:
        """Serialise, secrets in clear: for this node's own storage, readable by nobody else."""
        return self._state.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> MaskingClient:
        """Invert :meth:`to_bytes`; raises ProtocolError if ``data`` is not such a state."""
        return cls(MemberState.from_bytes(data))

    def wipe(self) -> None:
        """End this member's part and drop every secret.

        The serialised state holds none afterwards; Python promises nothing about memory that it has
        freed.
        """
        self._state.secrets, self._state.roster, self._state.stage = Secrets(), None, "done"

    @contextmanager
    def _or_wipe(self) -> Iterator[None]:
        """Whoever breaks the protocol gets no second try at this member's secrets."""
        try:
            yield
        except Exception:
            self.wipe()
            raise

    def _at(self, stage: str, run_id: int, round_: int) -> MemberState:
        state = self._state
        if (run_id, round_) != (state.run_id, state.round):
            raise self._refusal(
                f"asked about run {run_id}, round {round_}", "ask only about the round that is open"
            )
        if state.stage != stage:
            raise self._refusal(
                f"asked for a step that follows stage {stage}", "take each step once, in order"
            )
        return state

    def _joined(self, stage: str) -> tuple[MemberState, Roster]:
        """State and roster, if this is the stage."""
        state = self._at(stage, self._state.run_id, self._state.round)
        if state.roster is None:
            raise self._refusal("has lost its roster", "sit this round out")
        return state, state.roster

    def _check_own_place(self, roster: Roster) -> None:
        check_roster(roster)
        state = self._state
        if len(roster.members) < state.minimum:
            raise refusal(
                roster, f"has {len(roster.members)} members, this site's minimum is {state.minimum}"
            )
        if roster.order != state.order:
            raise refusal(roster, "is of another order than the one that this member followed")
        if state.node_id not in roster.members:
            raise refusal(roster, f"does not name node {state.node_id}, which it was sent to")
        if roster.keys_of(state.node_id) != state.public_keys:
            raise refusal(roster, f"has other keys for node {state.node_id} than it sent")

    def _check_values(self, values: NDArray[np.uint32]) -> None:
        if values.dtype != np.uint32 or values.ndim != 1 or values.size == 0:
            raise self._refusal(
                f"was given {values.dtype} values of shape {values.shape}, not uint32 (d,)",
                "encode the vector first",
            )

    def _check_sharers(self, ciphertexts: Mapping[int, bytes], roster: Roster) -> None:
        if strangers := sorted(set(ciphertexts) - set(roster.peers_of(self._state.node_id))):
            raise self._refusal(
                f"was sent shares of {strangers}, who are no peers", "forward peers' shares only"
            )
        if (sharers := len(ciphertexts) + 1) < roster.threshold:
            raise self._refusal(
                f"has {sharers} sharers where {roster.threshold} are needed", "give up this bucket"
            )

    def _unseal(self, peer: int, sealed: bytes, roster: Roster) -> bytes:
        context = roster.context("share", peer, self._state.node_id)
        key = crypto.agree(self._state.secrets.sharing_key, roster.keys_of(peer).sharing, context)
        shares = crypto.unseal(key, sealed, context)
        if shares is None or len(shares) != 2 * shamir.SHARE_BYTES:
            raise self._refusal(
                f"cannot decrypt the shares of peer {peer}: forged, altered or dealt under another "
                "roster",
                f"leave node {peer} out of later rounds",
            )
        return shares

    def _check_lists(
        self, survivors: Sequence[int], dropped: Sequence[int], roster: Roster
    ) -> None:
        if both := sorted(set(survivors) & set(dropped)):
            raise self._refusal(
                f"was told that {both} both survived and dropped out", "name each sharer once"
            )
        sharers = sorted(self._state.secrets.seed_shares)
        if sorted([*survivors, *dropped]) != sharers:
            raise self._refusal(
                f"was told of survivors {list(survivors)} and dropped {list(dropped)}, who are not "
                f"exactly the sharers {sharers}",
                "name each sharer once",
            )
        if len(survivors) < roster.threshold:
            raise self._refusal(
                f"was told of {len(survivors)} survivors where {roster.threshold} are needed",
                "give up this bucket",
            )
        if self._state.node_id not in survivors:
            raise self._refusal("was told that it dropped out itself", "ask survivors only")

    def _refusal(self, problem: str, cure: str) -> ProtocolError:
        s = self._state
        where = f"node {s.node_id} in run {s.run_id}, round {s.round}, stage {s.stage},"
        return ProtocolError(f"{where} {problem}", cure=cure)
