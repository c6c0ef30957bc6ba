"""Guarantees of the whole protocol: exact sums, dropouts, liars, and what a coalition sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedgrpo.ground import crypto
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure import Revealed, decode_sum, encode, fraction_bits, shamir, unmasking
from fedgrpo.secure.masks import BLOCK, masked_sum, pairwise_mask, self_mask
from fedgrpo.secure.roster import commitment_context
from fedgrpo.secure.state import MemberState
from fedgrpo.secure.unmasking import open_masks
from tests.secure.bucket import Bucket, Vector, bucket, node

A, B, C, D, E = (node(i) for i in range(5))


@st.composite
def dropouts(draw: st.DrawFn) -> tuple[int, int, list[int], list[int], list[int]]:
    """Members, threshold, and who is left after sharing, masking and revealing."""
    count = draw(st.integers(3, 7))
    threshold = draw(st.integers(count // 2 + 1, count))
    left = [node(i) for i in range(count)]
    stages = []
    for _ in range(3):
        kept = draw(st.integers(threshold, len(left)))
        left = draw(st.permutations(left))[:kept]
        stages.append(left)
    return count, threshold, *stages  # type: ignore[return-value]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(dropouts())
def test_the_sum_is_exact_whoever_drops_out_while_sharing_masking_or_revealing(
    case: tuple[int, int, list[int], list[int], list[int]],
) -> None:
    count, threshold, sharers, survivors, answering = case
    made = bucket(count, threshold).share(sharers).mask(survivors).reveal(answering)
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(3, 6), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_encoded_updates_come_out_as_their_sum(count: int, bound: float, seed: int) -> None:
    made = bucket(count)
    rng = np.random.default_rng(seed)
    updates = {member: rng.uniform(-bound, bound, 50) for member in made.clients}
    bits = fraction_bits(count, bound)
    made.values = {member: encode(x, bits, bound) for member, x in updates.items()}
    total = decode_sum(made.share().mask().reveal().unmask(), bits)
    np.testing.assert_allclose(
        total, sum(updates.values()), rtol=0, atol=count * 2.0 ** -(bits + 1) * 1.001
    )


def test_a_bucket_with_too_few_answers_is_lost_not_guessed() -> None:
    made = bucket(5).share().mask().reveal([A, B])
    with pytest.raises(ProtocolError, match="2 of 5 survivors answered properly, 3 are needed"):
        made.unmask()


# Liars


def other_seed_share(answer: Revealed) -> Revealed:
    return replace(answer, seed_shares={**answer.seed_shares, B: bytes(32)})


def other_key_share(answer: Revealed) -> Revealed:
    return replace(answer, key_shares=dict.fromkeys(answer.key_shares, b"\x07" * 32))


def all_shares_wrong(answer: Revealed) -> Revealed:
    return Revealed(
        dict.fromkeys(answer.seed_shares, bytes(33)), dict.fromkeys(answer.key_shares, bytes(33))
    )


LIES: dict[str, Callable[[Revealed], Revealed]] = {
    "a wrong share of a seed": other_seed_share,
    "a wrong share of a key": other_key_share,
    "only wrong shares": all_shares_wrong,
    "a share too short": lambda r: replace(r, seed_shares={**r.seed_shares, B: bytes(32)}),
    "a share that is no bytes": lambda r: replace(
        r,
        seed_shares={**r.seed_shares, B: "x" * 33},  # type: ignore[dict-item]
    ),
    "a share missing": lambda r: replace(r, key_shares={}),
    "a share too many": lambda r: replace(r, seed_shares={**r.seed_shares, E: bytes(33)}),
    "nothing": lambda r: Revealed({}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("liar", [A, D])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_shares_is_routed_around(lie: str, liar: int) -> None:
    made = bucket(5).share().mask([A, B, C, D]).reveal().tamper(liar, LIES[lie])
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())


@pytest.mark.slow
@pytest.mark.parametrize("liars", list(combinations([A, B, C, D], 2)))
@pytest.mark.parametrize("lie", LIES)
def test_too_many_lies_lose_the_bucket_and_never_give_a_wrong_sum(
    lie: str, liars: tuple[int, int]
) -> None:
    made = bucket(5).share().mask([A, B, C, D]).reveal()
    for liar in liars:
        made.tamper(liar, LIES[lie])
    with pytest.raises(ProtocolError, match="cannot be unmasked"):
        made.unmask()


def test_as_many_lies_as_can_be_outvoted_are_routed_around() -> None:
    made = bucket(7).share().mask().reveal()
    for liar in (A, C, E):
        made.tamper(liar, all_shares_wrong)
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())


def test_a_liar_costs_time_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []
    join = shamir.join_secret
    monkeypatch.setattr(
        unmasking, "join_secret", lambda shares: [attempts.append(1), join(shares)][1]
    )
    made = bucket(7).share().mask().reveal()
    for liar in (A, B, C):
        made.tamper(liar, all_shares_wrong)
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())
    assert len(attempts) == math.comb(7, 4) + 6


def test_attempts_are_bounded_and_running_out_of_them_loses_the_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unmasking, "_MAX_ATTEMPTS", 10)
    made = bucket(7).share().mask().reveal()
    for liar in (A, B, C):
        made.tamper(liar, all_shares_wrong)
    with pytest.raises(ProtocolError, match="no set of answers"):
        made.unmask()


def test_answers_of_those_who_did_not_survive_are_left_out() -> None:
    made = bucket(5).share().mask([A, B, C, D]).reveal()
    made.revealed[E] = all_shares_wrong(made.revealed[A])
    made.revealed[node(9)] = made.revealed[A]
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())


def deal_wrongly(made: Bucket, dealer: int, at: slice) -> None:
    """Let ``dealer`` deal shares of something else, properly encrypted."""
    secrets = made.clients[dealer]._state.secrets
    for peer in made.sent[dealer]:
        context = made.roster.context("share", dealer, peer)
        sharing = made.roster.keys_of(peer).sharing
        key = crypto.agree(secrets.sharing_key, sharing, context)
        plain = bytearray(crypto.unseal(key, made.sent[dealer][peer], context) or b"")
        plain[at] = b"\x55" * 32
        made.sent[dealer][peer] = crypto.seal(key, bytes(plain), context)


@pytest.mark.parametrize(("survives", "at"), [(True, slice(0, 32)), (False, slice(32, 64))])
def test_a_member_who_deals_wrong_shares_is_named_and_loses_only_its_bucket(
    survives: bool, at: slice
) -> None:
    made = bucket(4).share()
    deal_wrongly(made, D, at)
    made.mask([A, B, C, D] if survives else [A, B, C]).reveal()
    with pytest.raises(ProtocolError, match=f"member {D}"):
        made.unmask()


# Views


def looks_uniform(vector: Vector) -> bool:
    """Bytes pass a chi-square test; the chance that uniform ones do not is 1e-9."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    return bool(stats.chisquare(counts).pvalue > 1e-9)


def test_a_masked_vector_is_uniform_and_differs_from_run_to_run() -> None:
    sent = []
    for _ in range(2):
        made = bucket(3, words=50_000)
        made.values = {member: np.zeros(50_000, np.uint32) for member in made.clients}
        sent.append(made.share().mask().masked[A])
    assert all(looks_uniform(vector) for vector in sent)
    assert looks_uniform(sent[0] - sent[1])
    assert not looks_uniform(made.values[A])


@pytest.mark.parametrize("bucket_too", [False, True])
def test_masks_of_the_same_keys_differ_between_rounds_and_buckets(bucket_too: bool) -> None:
    made = bucket(3)
    private = made.clients[A]._state.secrets.masking_key
    seed = made.clients[A]._state.secrets.seed
    other = replace(made.roster, **({"bucket": 9} if bucket_too else {"round": 9}))
    assert not np.array_equal(
        pairwise_mask(made.roster, A, private, B).words(8),
        pairwise_mask(other, A, private, B).words(8),
    )
    mine, others = (self_mask(roster, A, seed).words(8) for roster in (made.roster, other))
    assert not np.array_equal(mine, others)


@given(st.integers(1, 300), st.lists(st.integers(1, 300), max_size=12), st.booleans())
def test_blocks_of_any_size_open_the_same_sum(words: int, sizes: list[int], drops: bool) -> None:
    made = bucket(4, words=words).share()
    made.mask([A, B, C] if drops else None).reveal()
    masks = open_masks(made.roster, list(made.sent), sorted(made.masked), made.revealed)
    edges = [0, *sorted({edge for edge in accumulate(sizes) if edge < words}), words]
    blocks = [
        masked_sum([vector[start:stop] for vector in made.masked.values()], masks)
        for start, stop in pairwise(edges)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), made.clear_sum())
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())


def test_members_mask_in_blocks_what_they_would_mask_at_once() -> None:
    made, words = bucket(3, words=2 * BLOCK + 5).share(), 2 * BLOCK + 5
    secrets = MemberState.from_bytes(made.clients[A].to_bytes()).secrets
    masks = [self_mask(made.roster, A, secrets.seed)]
    masks += [pairwise_mask(made.roster, A, secrets.masking_key, peer) for peer in (B, C)]
    at_once = made.values[A] + sum(mask.words(words) for mask in masks)
    np.testing.assert_array_equal(made.mask().masked[A], at_once)


def test_pairwise_masks_cancel() -> None:
    made = bucket(3)
    keys = {member: client._state.secrets.masking_key for member, client in made.clients.items()}
    one = pairwise_mask(made.roster, A, keys[A], B).words(1000)
    other = pairwise_mask(made.roster, B, keys[B], A).words(1000)
    assert one.any()
    assert not (one + other).any()


@pytest.mark.parametrize(("count", "threshold"), [(3, 2), (4, 3), (5, 3), (7, 4)])
def test_shares_below_the_threshold_give_a_wrong_seed_and_key(count: int, threshold: int) -> None:
    made = bucket(count, threshold)
    held = made.clients[A]._state.secrets
    seed, key = held.seed, held.masking_key
    made.share().mask()
    context = commitment_context(made.roster.run_id, made.roster.round, A)
    positions = range(1, count)
    for coalition in combinations(positions, threshold - 1):
        shares = [made.clients[node(i)]._state.secrets for i in coalition]
        by_position = dict(zip(coalition, shares, strict=True))
        guess = shamir.join_secret({i: s.seed_shares[A] for i, s in by_position.items()})
        assert guess != seed
        assert crypto.commit(guess, context) != made.roster.keys_of(A).seed_commitment
        assert shamir.join_secret({i: s.key_shares[A] for i, s in by_position.items()}) != key
    enough = {i: made.clients[node(i)]._state.secrets.seed_shares[A] for i in range(threshold)}
    assert shamir.join_secret(enough) == seed


def test_server_and_threshold_minus_one_members_see_only_the_sum_of_the_rest() -> None:
    words = 50_000
    made = bucket(5, words=words)
    made.values = {member: np.full(words, 17, np.uint32) for member in made.clients}
    colluding = {
        member: made.clients[member]._state.secrets.masking_key for member in (D, E)
    }  # threshold 3
    seeds = {member: client._state.secrets.seed for member, client in made.clients.items()}
    made.share().mask().reveal()
    # After unmasking the server knows every seed; the two members know the masks they added.
    peeled = {
        victim: made.masked[victim]
        - self_mask(made.roster, victim, seeds[victim]).words(words)
        + sum(
            pairwise_mask(made.roster, peer, key, victim).words(words)
            for peer, key in colluding.items()
        )
        for victim in (A, B, C)
    }
    assert all(looks_uniform(vector) for vector in peeled.values())
    assert all(looks_uniform(peeled[one] + peeled[two]) for one, two in combinations((A, B, C), 2))
    np.testing.assert_array_equal(peeled[A] + peeled[B] + peeled[C], np.full(words, 51, np.uint32))


def test_a_vector_that_arrives_after_its_sender_was_declared_dropped_stays_hidden() -> None:
    words = 50_000
    made = bucket(3, words=words)
    made.values = {member: np.zeros(words, np.uint32) for member in made.clients}
    key = made.clients[C]._state.secrets.masking_key
    late = made.share().mask().masked.pop(C)
    made.reveal()
    np.testing.assert_array_equal(made.unmask(), made.clear_sum())
    stripped = late - sum(pairwise_mask(made.roster, C, key, p).words(words) for p in (A, B))
    assert looks_uniform(stripped)


# Bad input to the server's half


def test_vectors_and_lists_that_do_not_fit_the_bucket_are_refused() -> None:
    def refused(match: str, **changed: object) -> None:
        made = bucket(3).share().mask().reveal()
        fields = {name: change(getattr(made, name)) for name, change in changed.items()}  # type: ignore[operator]
        with pytest.raises(ProtocolError, match=match):
            replace(made, **fields).unmask()

    refused("uint32", masked=lambda m: {**m, A: m[A].astype(np.int64)})
    refused("shapes", masked=lambda m: {**m, A: m[A][:-1]})
    refused("did not share", masked=lambda m: {**m, node(9): m[A]})
    refused("not distinct members", sent=lambda s: {**s, node(9): {}})
    refused("1 survivors are fewer than 2", masked=lambda m: {A: m[A]})
    refused("threshold 1", roster=lambda r: replace(r, threshold=1))
