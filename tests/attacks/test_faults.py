from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.attacks import Faults, faults_of
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import SimulationSettings

SIMULATION = SimulationSettings(clients=12, byzantine=2, droppers=3, dropout=0.3)


@given(st.integers(0, 11), st.integers(1, 1000), st.integers(0, 2**64))
def test_roles_are_fixed_and_attackers_never_drop(partition: int, number: int, seed: int) -> None:
    faults = faults_of(SIMULATION, partition, number, seed)
    assert faults.byzantine == (partition < 2)
    assert not faults.drops or partition >= 9
    assert faults == faults_of(SIMULATION, partition, number, seed)


def test_a_dropper_drops_about_as_often_as_it_should() -> None:
    drops = [
        faults_of(SIMULATION, partition, number, seed=5).drops
        for partition in (9, 10, 11)
        for number in range(1, 1001)
    ]
    # 3000 coins at 0.3: the standard deviation of the share is 0.0084.
    assert sum(drops) / len(drops) == pytest.approx(0.3, abs=0.035)


def test_clients_rounds_and_seeds_have_coins_of_their_own() -> None:
    def pattern(partition: int, seed: int) -> list[bool]:
        return [faults_of(SIMULATION, partition, n, seed).drops for n in range(1, 65)]

    patterns = [pattern(partition, seed) for partition in (9, 10, 11) for seed in (0, 1, 11)]
    assert all(0 < sum(drops) < 64 for drops in patterns)
    assert len({tuple(drops) for drops in patterns}) == len(patterns)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_never_and_always_are_exact(dropout: float) -> None:
    simulation = SIMULATION.model_copy(update={"dropout": dropout})
    for number in range(1, 200):
        assert faults_of(simulation, 11, number, seed=0) == Faults(False, drops=dropout == 1.0)


def test_without_faults_everybody_is_honest_and_stays() -> None:
    simulation = SimulationSettings(clients=3, dropout=1.0)
    for partition in range(3):
        assert faults_of(simulation, partition, 1, seed=0) == Faults(byzantine=False, drops=False)


def test_stragglers_and_newcomers_stand_before_droppers_and_each_has_one_fault() -> None:
    simulation = SimulationSettings(
        clients=12,
        byzantine=2,
        droppers=2,
        stragglers=3,
        newcomers=4,
        dropout=1.0,
        newcomers_from=5,
    )
    for number in (1, 4, 5, 9):
        faults = [faults_of(simulation, partition, number, seed=0) for partition in range(12)]
        away = [3, 4, 5, 6] if number < 5 else []
        assert [place for place, each in enumerate(faults) if each.byzantine] == [0, 1]
        assert [place for place, each in enumerate(faults) if each.drops] == [*away, 10, 11]
        assert [place for place, each in enumerate(faults) if each.late] == [7, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_decides_the_same(hash_seed: str) -> None:
    program = (
        "from fedgrpo.settings import SimulationSettings\n"
        "from fedgrpo.attacks import faults_of\n"
        "s = SimulationSettings(clients=12, byzantine=2, droppers=3, dropout=0.3)\n"
        "print(''.join(str(int(faults_of(s, 9, n, 7).drops)) for n in range(1, 65)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = "".join(str(int(faults_of(SIMULATION, 9, n, 7).drops)) for n in range(1, 65))
    assert there == here


@pytest.mark.parametrize("partition", [-1, 12])
def test_a_partition_outside_the_simulation_is_refused(partition: int) -> None:
    with pytest.raises(SettingsError, match=f"partition {partition} .*12 simulated clients"):
        faults_of(SIMULATION, partition, 1, seed=0)
