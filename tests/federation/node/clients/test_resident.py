"""How many cores a node trains on: its own configuration decides, or the simulation's settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.node.clients.resident import THREADS, use_cores
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import declared_by
from tests.federation.federation import make_adapter

SETTINGS = Settings.from_mapping({"simulation": {"cpus_per_client": 2}})
DEPLOYED: dict[str, Scalar] = {"prompts": "prompts.jsonl"}
SIMULATED: dict[str, Scalar] = {"partition-id": 0, "num-partitions": 9}


@pytest.fixture(autouse=True)
def at_first() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield 5
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("node", "threads"),
    [
        (SIMULATED, 2),
        (SIMULATED | {THREADS: 3}, 2),
        (DEPLOYED, 1),
        (DEPLOYED | {THREADS: 3}, 3),
    ],
    ids=["simulated", "simulated, told", "deployed", "deployed, told"],
)
def test_a_simulated_node_shares_the_machine_and_a_deployed_one_has_it(
    node: dict[str, Scalar], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_cores(SETTINGS, node)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused_before_the_charge(threads: Scalar) -> None:
    node = DEPLOYED | {THREADS: threads}
    with pytest.raises(SettingsError, match="threads"):
        LocalClients().prepare(SETTINGS, node, make_adapter(), declared_by(SIMULATED, SETTINGS))
    assert torch.get_num_threads() == 5
