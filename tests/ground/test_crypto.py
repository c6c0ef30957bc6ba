"""Secrets are kept to themselves, and derived keys share nothing."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedgrpo.ground.crypto import derive_key, kept_key, keystream, shuffled
from fedgrpo.ground.errors import RunError

KEY = bytes(range(32))
PARTS = st.lists(st.text(max_size=4) | st.integers(-5, 5), max_size=3)


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    first = kept_key(path)
    assert kept_key(path) == first == path.read_bytes()
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_key(tmp_path / "other") != first
    assert [file.name for file in path.parent.iterdir()] == ["secret"]


def test_processes_that_race_for_a_secret_agree_on_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(8) as pool:
        found = pool.map(kept_key, [tmp_path / "secret"] * 64)
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    kept_key(tmp_path / "secret")
    (tmp_path / "secret").chmod(mode)
    with pytest.raises(RunError, match="other users may read or write"):
        kept_key(tmp_path / "secret")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_damaged_secret_is_refused(tmp_path: Path, length: int) -> None:
    kept_key(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(bytes(length))
    with pytest.raises(RunError, match=f"has {length} bytes, not 32"):
        kept_key(tmp_path / "secret")


def test_derivation_is_hkdf_over_json() -> None:
    """RFC 5869 by hand: extract with an empty salt, expand by one block."""
    extract = hmac.HMAC(bytes(32), hashes.SHA256())
    extract.update(KEY)
    expand = hmac.HMAC(extract.finalize(), hashes.SHA256())
    expand.update(b'["fedgrpo", 1, "noise", "a", 7]\x01')
    assert derive_key(KEY, "noise", "a", 7) == expand.finalize()


@given(st.text(max_size=4), PARTS, st.text(max_size=4), PARTS)
def test_only_equal_purposes_and_contexts_have_equal_keys(
    purpose: str, context: list[str | int], other: str, others: list[str | int]
) -> None:
    same = (purpose, context) == (other, others)
    assert (derive_key(KEY, purpose, *context) == derive_key(KEY, other, *others)) == same


def test_other_secrets_have_other_keys() -> None:
    assert derive_key(KEY, "noise") != derive_key(bytes(32), "noise")


def test_a_stream_is_as_long_as_asked_and_starts_the_same() -> None:
    for length in (0, 1, 15, 16, 17, 1000):
        assert keystream(KEY, 1000)[:length] == keystream(KEY, length)


def test_every_order_is_as_likely_as_any_other() -> None:
    orders = Counter(tuple(shuffled("abcd", derive_key(KEY, "draw", i))) for i in range(4800))
    assert len(orders) == 24
    assert chisquare(list(orders.values())).pvalue > 1e-4
    assert shuffled("abcd", KEY) == shuffled("abcd", KEY)
