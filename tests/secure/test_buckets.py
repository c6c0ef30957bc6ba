"""Guarantees of the bucket assignment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import CohortError, ProtocolError
from fedgrpo.secure import assign_buckets


@given(st.sets(st.integers(0, 2**63), max_size=60), st.integers(2, 7))
def test_everyone_is_in_one_of_as_many_even_buckets_as_possible(nodes: set[int], size: int) -> None:
    if len(nodes) < size:
        with pytest.raises(CohortError, match=f"{len(nodes)} participants"):
            assign_buckets(list(nodes), size)
        return
    buckets = assign_buckets(list(nodes), size)
    assert sorted(node for bucket in buckets for node in bucket) == sorted(nodes)
    assert len(buckets) == len(nodes) // size
    sizes = {len(bucket) for bucket in buckets}
    assert min(sizes) >= size
    assert max(sizes) - min(sizes) <= 1
    assert all(list(bucket) == sorted(bucket) for bucket in buckets)


def test_no_two_nodes_can_rely_on_meeting() -> None:
    draws = [assign_buckets(range(9), 3) for _ in range(60)]
    peers = {bucket for draw in draws for bucket in draw if 0 in bucket}
    assert len(peers) > 5  # of 28; the chance of fewer is below 1e-30


def test_duplicates_and_lonely_buckets_are_refused() -> None:
    with pytest.raises(ProtocolError, match="twice"):
        assign_buckets([1, 2, 2, 3], 2)
    with pytest.raises(ProtocolError, match="hides nobody"):
        assign_buckets([1, 2, 3], 1)
