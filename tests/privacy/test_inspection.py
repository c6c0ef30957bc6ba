"""Direct checks pass what is sound, and name what is not."""

import numpy as np
import pytest

from fedgrpo.privacy.inspection import noise_faults, sampling_faults

ROUNDS, CANARIES = 3, 200


def noise(seed: int = 0, std: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=std, size=(ROUNDS, CANARIES))


def sizes(rate: float = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coins = rng.random((ROUNDS, CANARIES)) < rate
    return coins + rng.normal(scale=0.05, size=coins.shape)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_sound_passes(seed: int) -> None:
    assert noise_faults(noise(seed), 2.0) == []
    assert sampling_faults(sizes(0.5, seed), 0.05, 0.5) == []
    assert sampling_faults(sizes(0.02, seed), 0.05, 0.02) == []
    assert sampling_faults(sizes(1.0, seed), 0.05, 1.0) == []


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.8, 1.3])
def test_noise_of_another_spread_is_named(factor: float) -> None:
    (fault,) = noise_faults(factor * noise(), 2.0)
    assert "times the claimed standard deviation" in fault


def test_repeated_noise_is_named_with_its_rounds() -> None:
    repeated = noise()
    repeated[2] = repeated[0]
    (fault,) = noise_faults(repeated, 2.0)
    assert fault == "the noise of rounds 1 and 3 has correlation 1.00"


def test_other_rates_repeated_samples_and_long_units_are_named() -> None:
    assert "rate of 1.000 instead of 0.500" in sampling_faults(sizes(1.0), 0.05, 0.5)[0]
    assert "rate of 0.000 instead of 0.500" in sampling_faults(sizes(0.0), 0.05, 0.5)[0]
    repeated = sizes()
    repeated[1] = repeated[0]
    (fault,) = sampling_faults(repeated, 0.05, 0.5)
    assert fault == "the samples of rounds 1 and 2 agree in 200 of 200 units"
    assert "contributed 3." in sampling_faults(3 * sizes(), 0.05, 0.5)[0]
