"""Any threshold of shares gives a secret back, and fewer have one distribution for all secrets."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.secure import shamir

SECRETS = st.binary(min_size=32, max_size=32)


@given(SECRETS, st.integers(2, 5), st.integers(0, 3), st.randoms())
def test_any_threshold_of_shares_gives_the_secret_back(secret, threshold, more, random):
    shares = shamir.split_secret(secret, threshold, threshold + more)
    chosen = random.sample(range(threshold + more), threshold)
    assert {len(share) for share in shares} == {shamir.SHARE_BYTES}
    assert shamir.join_secret({place: shares[place] for place in chosen}) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_ends_of_the_range_are_secrets_like_others(secret):
    shares = shamir.split_secret(secret, 3, 5)
    assert shamir.join_secret(dict(enumerate(shares[:3]))) == secret


def test_the_prime_is_one_and_leaves_room_for_every_secret():
    # Fermat, to several bases: a composite number of no special form does not pass them all.
    assert all(pow(base, shamir._PRIME - 1, shamir._PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))
    assert shamir._PRIME > 2**256


@pytest.mark.parametrize(("threshold", "count"), [(2, 3), (3, 4)])
def test_fewer_shares_have_one_distribution_whatever_the_secret_is(monkeypatch, threshold, count):
    """In a field of 7 elements, over all polynomials that can be drawn."""
    monkeypatch.setattr(shamir, "_PRIME", 7)
    seen = {}
    for secret in range(7):
        counted = Counter()
        for drawn in product(range(7), repeat=threshold - 1):
            coefficients = iter(drawn)
            monkeypatch.setattr(shamir.secrets, "randbelow", lambda _, c=coefficients: next(c))
            shares = shamir.split_secret(bytes([secret]), threshold, count)
            for held in combinations(range(count), threshold - 1):
                counted[held, tuple(shares[place] for place in held)] += 1
        seen[secret] = counted
    assert all(counted == seen[0] for counted in seen.values())
