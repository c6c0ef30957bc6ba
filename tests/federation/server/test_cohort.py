"""A drawn cohort: of the size that was asked for, anew in each round, and the same when a round is
repeated.
"""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.server.cohort import drawn
from fedgrpo.ground.errors import CohortError
from tests.federation.federation import Federation, make_settings

SECRET = bytes(range(32))


def test_every_cohort_is_drawn_as_often_as_any_other() -> None:
    nodes = (3, 5, 8, 13, 21)
    found = Counter(drawn(nodes, 2, SECRET, "run", number) for number in range(2000))
    assert set(found) == set(combinations(nodes, 2))
    assert max(abs(count - 200) for count in found.values()) < 5 * np.sqrt(200)


def test_a_node_that_comes_or_goes_moves_at_most_one_place() -> None:
    nodes = tuple(range(100, 140))
    for number in range(50):
        before = set(drawn(nodes, 12, SECRET, "run", number))
        after = set(drawn(nodes[1:], 12, SECRET, "run", number))
        assert len(before - after) == (nodes[0] in before)


@pytest.mark.parametrize("size", [0, 5, 9])
def test_all_are_asked_where_no_fewer_are_wanted(size: int) -> None:
    assert drawn((1, 2, 3, 4, 5), size, SECRET, "run", 1) == (1, 2, 3, 4, 5)


def test_a_round_asks_its_cohort_and_nobody_else() -> None:
    settings = make_settings(rounds=4, federation__cohort=10)
    federation = Federation(settings, nodes=20)
    strategy = FedGRPO(settings, secret=SECRET)
    federation.run(strategy)
    asked = [{p for p, r in federation.releases if r == number} for number in range(1, 5)]
    assert [len(cohort) for cohort in asked] == [10] * 4
    assert len(set(map(frozenset, asked))) == 4, "another cohort in each round"
    assert [row.finished for row in strategy.history[1:]] == [10] * 4


def test_fewer_online_than_a_cohort_are_not_taken_for_it() -> None:
    settings = make_settings(federation__cohort=12, federation__wait_s=0.1)
    with pytest.raises(CohortError, match="11 clients are online") as caught:
        Federation(settings, nodes=11).run()
    assert "federation.cohort" in caught.value.cure
