"""Which units are sampled."""

import hashlib

import numpy as np

from fedgrpo.privacy.sampling import sampled_units

KEY = bytes(range(32))


def names(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


def test_a_unit_is_sampled_by_its_own_coin_and_ordered_by_its_own_key() -> None:
    """Taking a unit out moves no other: neither whether it is sampled nor its place."""
    everyone = names(400)
    chosen = sampled_units(everyone, 0.3, KEY)
    assert 80 < len(chosen) < 160
    for gone in (chosen[0], chosen[-1], everyone[7]):
        rest = sampled_units([name for name in everyone if name != gone], 0.3, KEY)
        assert rest == [name for name in chosen if name != gone]
    assert sampled_units(everyone[::-1], 0.3, KEY) == chosen
    assert sorted(sampled_units(everyone, 1.0, KEY)) == sorted(everyone)
    assert sampled_units([], 0.5, KEY) == []


def test_coins_and_places_are_independent_of_each_other_and_across_keys() -> None:
    everyone = names(4000)
    first, second = (set(sampled_units(everyone, 0.5, bytes([i]) * 32)) for i in range(2))
    # Binomial(4000, 1/4): six standard deviations are 165.
    assert abs(len(first & second) - 1000) < 165
    order = sampled_units(everyone, 1.0, KEY)
    places = {name: place for place, name in enumerate(order)}
    taken = [places[name] for name in sampled_units(everyone, 0.5, KEY)]
    assert abs(np.mean(taken) - 2000) < 6 * 4000 / np.sqrt(12 * len(taken))


def test_the_number_of_sampled_units_varies_as_a_binomial_does() -> None:
    everyone = names(50)
    counts = [
        len(sampled_units(everyone, 0.2, bytes([i % 256, i // 256]) * 16)) for i in range(400)
    ]
    # Binomial(20000, 0.2): six standard deviations are 0.017.
    assert abs(np.mean(counts) / 50 - 0.2) < 0.017
    assert 0.6 < np.var(counts) / (50 * 0.2 * 0.8) < 1.5
