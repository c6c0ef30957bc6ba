"""A federation of fake clients in one process: no torch, and every release known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.errors import AdapterError
from fedgrpo.ground.records import Evaluation
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.grid import grid_sum
from fedgrpo.privacy.release import ReleasePlan, release_prompts, release_update
from fedgrpo.settings import METRICS, Scalar, Settings

DIMENSION = 6
LAYOUT = "a" * 64
QUICK = {
    "rounds": 1,
    "privacy.unit": "none",
    "server.optimiser": "fedavg",
    "server.learning_rate": 1.0,
    "server.final_rate": 1.0,
    "federation.wait_s": 0.2,
    "federation.round_timeout_s": 0.2,
    "federation.reply_timeout_s": 0.2,
}

Delta = Callable[[int, int], NDArray[np.float64]]
"""``(partition, round) -> local update``."""


def make_settings(**changed: Scalar) -> Settings:
    """Settings whose adapter moves by just the aggregated delta. Dots are written ``__``."""
    return Settings.from_run_config(
        QUICK | {key.replace("__", "."): value for key, value in changed.items()}
    )


def make_adapter(dimension: int = DIMENSION) -> AdapterState:
    """An adapter at zero with a frozen basis."""
    return AdapterState(np.zeros(dimension, np.float32), {"A": np.eye(3, dtype=np.float32)}, LAYOUT)


def small_delta(partition: int, round: int, dimension: int = DIMENSION) -> NDArray[np.float64]:
    """A local update that depends on client and round, well within a clipping norm of 1."""
    return np.random.default_rng([partition, round]).normal(scale=0.05, size=dimension)


@dataclass
class FakeClient:
    """Releases a given delta the way a real client does."""

    partition: int
    delta: Delta
    releases: dict[tuple[int, int], NDArray[np.float64]]

    def contribute(
        self,
        adapter: AdapterState,
        plan: ReleasePlan,
        round: int,
        key: bytes,
        watch: Watch,
    ) -> NDArray[np.float64]:
        if adapter.layout != LAYOUT:
            raise AdapterError("adapter of another layout", cure="use the same model")
        delta, metrics = self.delta(self.partition, round), np.full(len(METRICS), 0.75)
        if plan.unit == "prompt":
            release = release_prompts(
                grid_sum(delta[None], metrics[None], plan.clipping_norm), plan, key
            )
        else:
            release = release_update(delta, metrics, plan, key)
        self.releases[self.partition, round] = release
        return release


@dataclass
class Federation:
    """Settings, fake clients and the grid between them."""

    settings: Settings
    nodes: int = 12
    delta: Delta = small_delta
    drop: Callable[[str, int], bool] = lambda stage, node: False
    tamper: Callable[[str, int, Message], Any] = lambda stage, node, reply: reply
    run_id: int = 1
    client: Callable[..., Any] | None = None
    releases: dict[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grid = LocalGrid(
            make_client_app(self.client or self._client),
            self.nodes,
            run_config=self.settings.to_run_config(),
            drop=self.drop,
            tamper=self.tamper,
            run_id=self.run_id,
        )

    def _client(self, settings: Settings, node_config: Mapping[str, Scalar]) -> FakeClient:
        return FakeClient(int(node_config["partition-id"]), self.delta, self.releases)

    def run(self, strategy: FedGRPO | None = None, adapter: AdapterState | None = None) -> FedGRPO:
        """Run all rounds and return the strategy."""
        strategy = strategy or FedGRPO(self.settings)
        strategy.start(self.grid, write_adapter(adapter or make_adapter()))
        return strategy


def vector_of(strategy: FedGRPO) -> NDArray[np.float32]:
    """The global adapter's trainable values."""
    assert strategy.state is not None
    return strategy.state.adapter.vector


class FakeEvaluator:
    """Figures that depend on the adapter alone."""

    def evaluate(self, adapter: AdapterState, *, at_end: bool = False) -> Evaluation:
        mean = float(np.abs(adapter.vector).mean())
        return Evaluation(sampled=mean, greedy=mean / 2, kl_base=mean / 4)
