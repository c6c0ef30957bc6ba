"""The server's half: take the masks off a bucket's sum, and notice lies about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import commit, public_key
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.masks import Mask, blocks_of, masked_sum, pairwise_mask, self_mask
from fedgrpo.secure.roster import Revealed, Roster, check_roster, commitment_context
from fedgrpo.secure.shamir import SHARE_BYTES, join_secret

_MAX_ATTEMPTS = 2000
"""Sets of answers tried for one bucket, about 5 ms each. Enough for any lies among 9 members and
for 6 lying throughout among 13; beyond that, lies may lose the bucket, though never unnoticed."""


def unmask_sum(
    roster: Roster,
    sharers: Sequence[int],
    masked: Mapping[int, NDArray[np.uint32]],
    revealed: Mapping[int, Revealed],
) -> NDArray[np.uint32]:
    """Compute the exact sum of the survivors' vectors modulo 2^32, see :func:`open_masks`.

    Parameters
    ----------
    masked:
        ``{survivor: uint32, shape (d,)}``. Sharers that are absent dropped out.

    Returns
    -------
    NDArray[np.uint32]
        Shape (d,): the sum over the keys of ``masked``.
    """
    words = _check_vectors(roster, masked)
    masks = open_masks(roster, sharers, sorted(masked), revealed)
    total = np.empty(words, np.uint32)
    for block in blocks_of(words):
        total[block] = masked_sum([vector[block] for vector in masked.values()], masks)
    return total


def open_masks(
    roster: Roster,
    sharers: Sequence[int],
    survivors: Sequence[int],
    revealed: Mapping[int, Revealed],
) -> list[Mask]:
    """Reconstruct what, added to the sum of the survivors' masked vectors, leaves the exact sum of
    their vectors modulo 2^32. Whoever takes it off block by block opens all blocks of one sum: the
    survivors and the answers are those of the whole vectors.

    Adversary: the server that runs this is honest but curious. Together with up to ``threshold -
    1`` members it learns the sum over the other survivors and nothing else. Lying members cannot
    make the result wrong: each reconstructed seed is checked against its commitment and each
    reconstructed key against the public masking key, and other sets of answers are tried until one
    fits. What remains to a liar is to send a vector of its choice (the robust rule's business) or
    to lose its own bucket, by dealing shares that fit nothing. Raises ProtocolError if roster,
    sharers or survivors do not fit together, fewer than ``threshold`` members answer properly, or a
    secret cannot be reconstructed from any set of answers.

    Parameters
    ----------
    roster:
        As it was announced to the members.
    sharers:
        Members whose encrypted shares were forwarded to all the others.
    survivors:
        Sharers whose masked vector arrived.
    revealed:
        Answers by survivor. Malformed answers and those of non-survivors are left out.
    """
    check_roster(roster)
    _check_bucket(roster, sharers, survivors)
    dropped = sorted(set(sharers) - set(survivors))
    opener = _Opener(roster, _proper_answers(roster, revealed, survivors, dropped))
    masks = [self_mask(roster, member, opener.seed(member), off=True) for member in survivors]
    for member in dropped:
        private = opener.masking_key(member)
        # What the dropped member would have added cancels what the survivor did add.
        masks += [pairwise_mask(roster, member, private, survivor) for survivor in survivors]
    return masks


def _check_bucket(roster: Roster, sharers: Sequence[int], survivors: Sequence[int]) -> None:
    if len(set(sharers)) != len(sharers) or not set(sharers) <= set(roster.members):
        raise _broken(roster, f"sharers {list(sharers)} are not distinct members {roster.members}")
    if strangers := sorted(set(survivors) - set(sharers)):
        raise _broken(roster, f"masked vectors came from {strangers}, who did not share")
    if len(survivors) < roster.threshold:
        raise _broken(roster, f"{len(survivors)} survivors are fewer than {roster.threshold}")


def _check_vectors(roster: Roster, masked: Mapping[int, NDArray[np.uint32]]) -> int:
    """Length of the vectors, once it is sure that they can be summed."""
    shapes = {vector.shape for vector in masked.values()}
    if len(shapes) != 1 or any(len(shape) != 1 for shape in shapes):
        raise _broken(roster, f"masked vectors have shapes {sorted(shapes)}, not one (d,)")
    for member, vector in masked.items():
        if vector.dtype != np.uint32:
            raise _broken(roster, f"the masked vector of {member} is {vector.dtype}, not uint32")
    return int(shapes.pop()[0])


def _proper_answers(
    roster: Roster,
    revealed: Mapping[int, Revealed],
    survivors: Sequence[int],
    dropped: Sequence[int],
) -> dict[int, Revealed]:
    answers = {
        member: revealed[member]
        for member in survivors
        if member in revealed
        and _well_formed(revealed[member].seed_shares, survivors)
        and _well_formed(revealed[member].key_shares, dropped)
    }
    if len(answers) < roster.threshold:
        raise _broken(
            roster,
            f"{len(answers)} of {len(survivors)} survivors answered properly, "
            f"{roster.threshold} are needed",
        )
    return answers


def _well_formed(shares: Mapping[int, bytes], expected: Iterable[int]) -> bool:
    return set(shares) == set(expected) and all(
        isinstance(share, bytes) and len(share) == SHARE_BYTES for share in shares.values()
    )


class _Opener:
    """Reconstructs one bucket's secrets from answers of which some may be lies."""

    def __init__(self, roster: Roster, answers: Mapping[int, Revealed]) -> None:
        self._roster = roster
        self._answers = answers
        self._order = list(answers)
        self._attempts = _MAX_ATTEMPTS

    def seed(self, member: int) -> bytes:
        roster = self._roster
        commitment = roster.keys_of(member).seed_commitment
        context = commitment_context(roster.run_id, roster.round, member)
        shares = {peer: answer.seed_shares[member] for peer, answer in self._answers.items()}
        seed = self._reconstruct(shares, lambda secret: commit(secret, context) == commitment)
        if seed is None:
            raise _broken(roster, f"no set of answers opens the seed commitment of member {member}")
        return seed

    def masking_key(self, member: int) -> bytes:
        public = self._roster.keys_of(member).masking
        shares = {peer: answer.key_shares[member] for peer, answer in self._answers.items()}
        private = self._reconstruct(shares, lambda secret: public_key(secret) == public)
        if private is None:
            raise _broken(
                self._roster, f"no set of answers gives the masking key of member {member}"
            )
        return private

    def _reconstruct(
        self, shares: Mapping[int, bytes], fits: Callable[[bytes], bool]
    ) -> bytes | None:
        """First secret that fits, over the sets of ``threshold`` shares; None if there is none."""
        for chosen in combinations(self._order, self._roster.threshold):
            if self._attempts == 0:
                return None
            self._attempts -= 1
            position = self._roster.members.index
            secret = join_secret({position(peer): shares[peer] for peer in chosen})
            if fits(secret):
                # Who told the truth is asked first next time, so that a liar costs time only once.
                self._order.sort(key=lambda peer: peer not in chosen)
                return secret
        return None


def _broken(roster: Roster, problem: str) -> ProtocolError:
    return ProtocolError(
        f"run {roster.run_id}, round {roster.round}, bucket {roster.bucket} cannot be unmasked: "
        f"{problem}",
        cure="leave this bucket out of the round",
    )
