"""A federation in one process whose units are canaries: everything but a model and its answers.

Messages, charges, keys, coins, clipping, noise, masks, committee, robust rule and optimiser are
those of a run. Canaries are the worst that a unit can be: each of more than full length in a
direction of its own, among colluders who see to it that the robust rule keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import units_of
from fedgrpo.federation.client_app import make_client_app
from fedgrpo.federation.holder import LocalHolder
from fedgrpo.federation.interfaces import Holder
from fedgrpo.federation.local_grid import FIRST_NODE, LocalGrid
from fedgrpo.federation.messages import read_release, write_adapter
from fedgrpo.federation.plans import release_plan
from fedgrpo.federation.prompt_holder import PromptHolder
from fedgrpo.federation.strategy import FedGRPO
from fedgrpo.federation.watch import Watch
from fedgrpo.grpo.isolated.engine import Judged, Lesson
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.model.adapter import AdapterState
from fedgrpo.policy.declared import Declared
from fedgrpo.privacy.release import METRICS, ReleasePlan, read_aggregate
from fedgrpo.settings import Scalar, Settings

Floats = NDArray[np.float64]
Coins = NDArray[np.bool_]

LENGTH = 3.0
"""Canaries' norm over C: they are clipped like everything else."""
READABLE = {
    "server.optimiser": "fedavg",
    "server.learning_rate": 1.0,
    "server.final_rate": 1.0,
}
"""Settings by which the global adapter moves by just what a round releases."""

_LAYOUT = "c" * 64


def canary_run(settings: Settings, planted: Coins) -> Floats:
    """Run the federation, and return what a reader of the released models sees of each canary.

    Prompt level: canaries are units of one holder, and empty prompts where they are not planted.
    Client level: they are holders, and contribute zero where not.

    Adversary: whoever reads the released models; with client noise also the server with all other
    holders, since those add nothing: the model moves by the one holder's own release.

    Parameters
    ----------
    settings:
        With a privacy unit, a fixed clipping norm and :data:`READABLE`. At prompt level,
        ``data.min_prompts`` is the number m of canaries; at client level, with ``robust.trim``
        colluders, ``federation.min_holders`` is. ``robust.trim`` and the rule say how many collude.
    planted:
        Shape (m,).

    Returns
    -------
    float64, shape (rounds, m)
        In units of what one canary moves when it is sampled.
    """
    view = _View(settings)
    holders = _Holders(settings, planted, view)
    nodes, config = settings.federation.min_holders, settings.to_run_config()
    grid = LocalGrid(make_client_app(holders), nodes, run_config=config, tamper=view.overhear)
    strategy = FedGRPO(settings)
    strategy.start(grid, write_adapter(_adapter(planted.size)))
    assert strategy.state is not None
    view.models.append(strategy.state.adapter.vector.astype(np.float64))
    return view.moves() / (settings.privacy.clipping_norm * _share(settings))


@dataclass(frozen=True)
class _View:
    """What the adversary sees: released models, and releases themselves where the noise is each
    holder's own and others' would be added to it.

    Attributes
    ----------
    models:
        The global adapter before each round, and after the last.
    releases:
        ``(round, place of the holder) -> its release``, in the update's own units.
    """

    settings: Settings
    models: list[Floats] = field(default_factory=list)
    releases: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def overhear(self, stage: str, node: int, reply: Message) -> Message:
        """Keep a release on its way to the server."""
        if _overheard(self.settings) and stage == "train" and reply.has_content():
            size, place = self.models[-1].size, node - FIRST_NODE
            plan = release_plan(self.settings, size, self.settings.privacy.clipping_norm)
            release = read_release(reply.content, plan.size)
            self.releases[len(self.models), place] = read_aggregate(release, plan).delta
        return reply

    def moves(self) -> Floats:
        """What each canary's coordinate moved by, shape (rounds, m)."""
        if not _overheard(self.settings):
            return np.diff(self.models, axis=0)
        rounds, canaries = len(self.models) - 1, self.models[0].size
        each = [[self.releases[t + 1, i][i] for i in range(canaries)] for t in range(rounds)]
        return np.array(each)


def claimed_noise(settings: Settings) -> float:
    """Standard deviation that noise must have in :func:`canary_run`'s units, in every coordinate:
    z, of which the update has all but the metrics' share of the squared sensitivity.
    """
    privacy = settings.privacy
    return privacy.noise_multiplier / float(np.sqrt(1 - privacy.metrics_share))


def claimed_rate(settings: Settings) -> float:
    """Probability with which a canary is in a round."""
    if settings.privacy.unit == "client":
        return 1.0
    return settings.grpo.prompts_per_step / settings.data.min_prompts


def _overheard(settings: Settings) -> bool:
    """Whether single releases are looked at: many holders each add noise to their own."""
    return settings.privacy.unit == "client" and settings.privacy.noise == "client"


def _share(settings: Settings) -> float:
    """What one clipped canary moves the adversary's view by, over C."""
    if _overheard(settings):
        return 1.0
    kept = settings.federation.min_holders - 2 * _colluders(settings)
    prompts = settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1
    return 1 / (prompts * kept)


def _colluders(settings: Settings) -> int:
    return settings.robust.trim if settings.robust.rule == "trimmed_mean" else 0


def _adapter(dimension: int) -> AdapterState:
    zeros = np.zeros(dimension, np.float32)
    return AdapterState(zeros, {"A": np.eye(2, dtype=np.float32)}, _LAYOUT)


@dataclass(frozen=True)
class _Holders:
    """Makes each node's holder: canaries first, colluders last, others between that add nothing."""

    settings: Settings
    planted: Coins
    view: _View

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Holder:
        place, last = int(node_config["partition-id"]), int(node_config["num-partitions"]) - 1
        log = self.view.models if place == 0 else None
        if place > last - _colluders(settings):
            return _Constant(high=True)
        if settings.privacy.unit == "client":
            return _ClientCanary(settings, place, bool(self.planted[place]), log)
        if place == 0:
            return _PromptCanaries(settings, self.planted, self.view.models)
        return _Constant(high=False)


@dataclass(frozen=True)
class _Constant:
    """A holder that sends zeros, or the largest values, without any noise."""

    high: bool

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.interfaces.Holder`."""
        return np.full(plan.size, plan.bound if self.high else 0.0)


class _PromptCanaries(PromptHolder):
    """The holder as it is, over an engine that knows its lessons beforehand."""

    def __init__(self, settings: Settings, planted: Coins, models: list[Floats]) -> None:
        rows = [PromptRow(f"canary {number}") for number in range(planted.size)]
        self.settings, self.unread = settings, 0
        self.declared = Declared(planted.size, 1, (), 0.0, any_weights=False)
        self.units = {unit.name: unit for unit in units_of(rows)}
        self.ids = [(0,)] * planted.size
        self.engine: Any = _Taught(planted, settings.privacy.clipping_norm)
        self._models = models

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.interfaces.Holder`."""
        self._models.append(adapter.vector.astype(np.float64))
        return super().contribute(adapter, plan, round, key, watch)


class _Taught:
    """Stands for :class:`fedgrpo.grpo.isolated.engine.Engine`: lessons without a model."""

    def __init__(self, planted: Coins, clipping_norm: float) -> None:
        self._planted, self._length = planted, LENGTH * clipping_norm
        adapter = SimpleNamespace(dimension=planted.size, load=lambda state: None)
        self.policy = SimpleNamespace(adapter=adapter)

    def collect(self, rows: Sequence[Row], guard: object) -> list[Judged]:
        middling = {name: np.full(1, 0.5) for name in METRICS}
        told: Any = SimpleNamespace(per_prompt=lambda: middling)
        return [Judged(row, told) for row in rows]

    def teach(
        self, judged: Sequence[Judged], guard: object
    ) -> Iterator[tuple[list[Lesson], set[str]]]:
        yield [Lesson(j, self._gradient(j.row.index)) for j in judged], {j.row.unit for j in judged}

    def _gradient(self, index: int) -> torch.Tensor | None:
        """Of the loss, so that descent is along the canary's own direction."""
        if not self._planted[index]:
            return None
        gradient = torch.zeros(self._planted.size, dtype=torch.float64)
        gradient[index] = -self._length
        return gradient


class _ClientCanary(LocalHolder):
    """The holder as it is, over a trainer that moves the adapter by a canary."""

    def __init__(
        self, settings: Settings, place: int, planted: bool, models: list[Floats] | None
    ) -> None:
        length = LENGTH * settings.privacy.clipping_norm if planted else 0.0
        trainer: Any = _Moved(settings, place, length)
        super().__init__(settings, trainer, seed=None)
        self._models = models

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.interfaces.Holder`."""
        if self._models is not None:
            self._models.append(adapter.vector.astype(np.float64))
        return super().contribute(adapter, plan, round, key, watch)


@dataclass
class _Moved:
    """Stands for a trainer: one step that moves one coordinate, with middling figures."""

    whole: Settings
    place: int
    length: float
    state: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def settings(self) -> Any:
        return self.whole.grpo

    @property
    def adapter(self) -> Any:
        return SimpleNamespace(load=self._load, vector=self.state.copy)

    def _load(self, adapter: AdapterState) -> None:
        self.state = adapter.vector.astype(np.float64)

    def start_round(self, seed: int) -> None:
        """Nothing is drawn."""

    def train(self, steps: int) -> Iterator[object]:
        self.state[self.place] += self.length
        yield SimpleNamespace(**dict.fromkeys(METRICS, 0.5))
