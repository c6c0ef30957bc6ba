from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedgrpo.attacks import ATTACKS, Knowledge, apply_attack, register_attack
from fedgrpo.ground.errors import AdapterError, SettingsError

Floats = NDArray[np.float64]
VECTORS = st.integers(1, 20).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(-10, 10))] * 2)
)


def known(vector: Floats, **others: object) -> Knowledge:
    """What an attacker with this vector of its own knows, all of it update."""
    chosen = {"boost": 1.0, "round": 1, "update": vector.size, "own": vector[None], **others}
    return Knowledge(**chosen)  # type: ignore[arg-type]


BLIND = ["against_last", "collude", "constant", "gaussian", "infinity", "nan", "stale", "zero"]
OWN = ["fang_own", "ipm_own", "reverse_boost", "sign_flip"]
KNOWN = BLIND + OWN


def test_the_attacks_are_registered() -> None:
    assert set(KNOWN) <= set(ATTACKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
@given(VECTORS, st.booleans(), st.floats(0.1, 100), st.integers(1, 100))
def test_an_attack_is_pure_and_keeps_shape_and_type(
    name: str, vectors: tuple[Floats, Floats], first: bool, boost: float, number: int
) -> None:
    vector, last = vectors[0].copy(), vectors[1].copy()
    previous = None if first else last
    sent = apply_attack(name, vector, known(vector, boost=boost, step=previous, round=number))
    again = apply_attack(name, vector, known(vector, boost=boost, step=previous, round=number))
    assert sent.shape == vector.shape
    assert sent.dtype == np.float64
    assert not np.shares_memory(sent, vector)
    assert not np.shares_memory(sent, last)
    np.testing.assert_array_equal(sent, again)
    np.testing.assert_array_equal(vector, vectors[0])
    np.testing.assert_array_equal(last, vectors[1])


VECTOR = np.array([1.0, -2.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("reverse_boost", [-10.0, 20.0, 0.0, -30.0]),
        ("constant", [10.0] * 4),
        ("zero", [0.0] * 4),
        ("nan", [np.nan] * 4),
    ],
)
def test_each_attack_sends_what_it_says(name: str, sent: list[float]) -> None:
    out = apply_attack(name, VECTOR, known(VECTOR, boost=10.0))
    np.testing.assert_array_equal(out, sent)


def test_against_last_pushes_each_coordinate_back_by_boost_times_own_spread() -> None:
    previous = np.array([0.5, -7.0, 0.0, 1e-9])
    out = apply_attack("against_last", VECTOR, known(VECTOR, boost=2.0, step=previous, round=5))
    spread = np.sqrt(np.mean((VECTOR - VECTOR.mean()) ** 2))
    np.testing.assert_allclose(out, 2.0 * spread * np.array([-1.0, 1.0, 0.0, -1.0]))


def test_against_last_reverses_its_own_update_before_there_is_a_last() -> None:
    knowledge = known(VECTOR, boost=3.0)
    np.testing.assert_array_equal(
        apply_attack("against_last", VECTOR, knowledge),
        apply_attack("reverse_boost", VECTOR, knowledge),
    )


@given(VECTORS, st.floats(0.1, 100), st.integers(1, 100))
def test_colluders_send_one_vector_against_the_last_step(
    vectors: tuple[Floats, Floats], boost: float, number: int
) -> None:
    own, previous = vectors
    sent = [
        apply_attack("collude", vector, known(vector, boost=boost, step=previous, round=number))
        for vector in (own, -3 * own + 1)
    ]
    np.testing.assert_array_equal(*sent)
    np.testing.assert_array_equal(np.sign(sent[0]), -np.sign(previous))
    moving = np.count_nonzero(previous)
    assert np.linalg.norm(sent[0]) == pytest.approx(boost * np.sqrt(moving / own.size))


def test_colluders_agree_before_there_is_a_last_step() -> None:
    first = apply_attack("collude", VECTOR, known(VECTOR, boost=2.0))
    np.testing.assert_array_equal(first, [1.0] * 4)


def test_an_unknown_attack_is_refused_with_those_known() -> None:
    with pytest.raises(SettingsError, match=r"simulation\.attack = 'evil'") as caught:
        apply_attack("evil", VECTOR, known(VECTOR))
    assert all(name in caught.value.cure for name in KNOWN)


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(SettingsError, match="registered twice"):
        register_attack("zero")(lambda vector, _: vector)


def test_the_aggregate_of_another_adapter_is_refused() -> None:
    for name in ("step", "last", "first"):
        with pytest.raises(AdapterError, match=rf"{name} has shape \(3,\), with vectors of size 4"):
            apply_attack("against_last", VECTOR, known(VECTOR, **{name: np.zeros(3)}))
    with pytest.raises(AdapterError, match=r"honest has shape \(2, 3\)"):
        apply_attack("against_last", VECTOR, known(VECTOR, honest=np.zeros((2, 3))))


def test_an_attack_of_a_file_sees_what_colluders_would_have_sent(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def f(vector, knowledge, *, times=1.0):\n"
        "    return times * np.sum(knowledge.own, axis=0)\n"
        "def g(vector, knowledge):\n    return vector[1:]\n"
    )
    name = f"{tmp_path}/mine.py:f(times=2.0)"
    alone = apply_attack(name, VECTOR, known(VECTOR))
    np.testing.assert_array_equal(alone, 2 * VECTOR)
    both = apply_attack(name, VECTOR, known(VECTOR, own=np.stack([VECTOR, np.ones(4)])))
    np.testing.assert_array_equal(both, 2 * (VECTOR + 1))
    with pytest.raises(AdapterError, match=r"returned shape \(3,\)"):
        apply_attack(f"{tmp_path}/mine.py:g", VECTOR, known(VECTOR))


def test_colluders_of_a_round_draw_the_same_and_those_of_another_do_not() -> None:
    draws = [known(VECTOR, round=number).generator().normal() for number in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
