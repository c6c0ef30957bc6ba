"""Clients of canaries: the production ones over stubs of what a model does, and colluders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import units_of
from fedgrpo.federation.node.clients.client import LocalClient
from fedgrpo.federation.node.clients.prompt_client import PromptClient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.grpo.isolated.engine import Judged, Lesson
from fedgrpo.grpo.isolated.keys import Row
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.settings import METRICS, Settings
from fedgrpo.site.declared import Declared

Floats = NDArray[np.float64]
Coins = NDArray[np.bool_]

LENGTH = 3.0
"""Canaries' norm over C: they are clipped like everything else."""


@dataclass(frozen=True)
class Constant:
    """A client that sends zeros, or the largest values, without any noise."""

    high: bool

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""
        return np.full(plan.size, plan.bound if self.high else 0.0)


class PromptCanaries(PromptClient):
    """The client as it is, over an engine that knows its lessons beforehand."""

    def __init__(self, settings: Settings, planted: Coins, models: list[Floats]) -> None:
        rows = [PromptRow(f"canary {number}") for number in range(planted.size)]
        self.settings, self.unread, self.late = settings, 0, 0
        self.declared = Declared(planted.size, 1, (), 0.0, any_weights=False)
        self.units = {unit.name: unit for unit in units_of(rows)}
        self.ids = [(0,)] * planted.size
        self.spans = {}
        self.engine: Any = _Taught(planted, settings.privacy.clipping_norm)
        self._models = models

    def contribute(
        self, adapter: AdapterState, plan: ReleasePlan, round: int, key: bytes, watch: Watch
    ) -> Floats:
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""
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


class ClientCanary(LocalClient):
    """The client as it is, over a trainer that moves the adapter by a canary."""

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
        """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""
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

    def start_round(self, seed: int, *, earlier: int, of_run: int) -> None:
        """Nothing is drawn, and no rate is scheduled."""

    def train(self, steps: int) -> Iterator[object]:
        self.state[self.place] += self.length
        yield SimpleNamespace(figures=dict.fromkeys(METRICS, 0.5))
