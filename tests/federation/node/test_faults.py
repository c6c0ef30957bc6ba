"""What attackers of one process know of each other."""

import numpy as np

from fedgrpo.federation.node.faults import honest_vectors


def test_attackers_of_one_round_know_those_before_them_and_no_other_round() -> None:
    first, second = np.ones(3), np.full(3, 2.0)
    assert [v.tolist() for v in honest_vectors(b"1", {"partition-id": 4}, first)] == [[1.0] * 3]
    known = honest_vectors(b"1", {"partition-id": 2}, second)
    assert [v.tolist() for v in known] == [[2.0] * 3, [1.0] * 3]
    # Asked again, nobody counts twice.
    assert len(honest_vectors(b"1", {"partition-id": 4}, first)) == 2
    assert len(honest_vectors(b"2", {"partition-id": 4}, first)) == 1
