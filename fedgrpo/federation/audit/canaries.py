"""A federation in one process whose units are canaries: everything but a model and its answers.

Messages, charges, keys, coins, clipping, noise, masks, committee, robust rule and optimiser are
those of a run. Canaries are the worst that a unit can be: each of more than full length in a
direction of its own, among colluders who see to it that the robust rule keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedgrpo.federation.audit.canary_clients import ClientCanary, Constant, PromptCanaries
from fedgrpo.federation.node.client_app import make_client_app
from fedgrpo.federation.node.clients.interfaces import Client
from fedgrpo.federation.server.strategy import FedGRPO
from fedgrpo.federation.simulation.local_grid import FIRST_NODE, LocalGrid
from fedgrpo.federation.wire.messages import read_release, write_adapter
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import read_aggregate
from fedgrpo.settings import Scalar, Settings

Floats = NDArray[np.float64]
Coins = NDArray[np.bool_]

READABLE: dict[str, Scalar] = {
    "server.optimiser": "fedavg",
    "server.learning_rate": 1.0,
    "server.final_rate": 1.0,
}
"""Settings by which the global adapter moves by just what a round releases."""

_LAYOUT = "c" * 64


def canary_settings(
    unit: str, noise: str, protocol: str, multiplier: float, clients: int, trim: int, **more: Scalar
) -> Settings:
    """Settings of a run of canaries, without a limit on epsilon.

    Parameters
    ----------
    unit, noise, protocol, multiplier:
        ``privacy.unit``, ``privacy.noise``, ``aggregation.protocol``, ``privacy.noise_multiplier``.
    clients, trim:
        Clients in a round, and how many values are trimmed at either end: 0 takes the mean.
    more:
        Other settings, their dots written as ``__``.
    """
    chosen: dict[str, Scalar] = {
        "privacy.unit": unit,
        "privacy.noise": noise,
        "privacy.noise_multiplier": multiplier,
        "privacy.max_epsilon": 1e9,
        "aggregation.protocol": protocol,
        "robust.rule": "trimmed_mean" if trim else "mean",
        "robust.trim": trim,
        "federation.min_clients": clients,
        "federation.wait_s": 0.2,
    }
    others = {name.replace("__", "."): value for name, value in more.items()}
    return Settings.from_run_config(READABLE | chosen | others)


def canary_run(settings: Settings, planted: Coins) -> Floats:
    """Run the federation, and return what a reader of the released models sees of each canary.

    Prompt level: canaries are units of one client, and empty prompts where they are not planted.
    Client level: they are clients, and contribute zero where not.

    Adversary: whoever reads the released models; with client noise also the server with all other
    clients, since those add nothing: the model moves by the one client's own release.

    Parameters
    ----------
    settings:
        With a privacy unit, a fixed clipping norm and :data:`READABLE`. At prompt level,
        ``data.min_prompts`` is the number m of canaries; at client level, with ``robust.trim``
        colluders, ``federation.min_clients`` is. ``robust.trim`` and the rule say how many collude.
    planted:
        Shape (m,).

    Returns
    -------
    float64, shape (rounds, m)
        In units of what one canary moves when it is sampled.
    """
    view = _View(settings)
    clients = _Clients(settings, planted, view)
    nodes, config = settings.federation.min_clients, settings.to_run_config()
    grid = LocalGrid(make_client_app(clients), nodes, run_config=config, tamper=view.overhear)
    strategy = FedGRPO(settings)
    strategy.start(grid, write_adapter(_adapter(planted.size)))
    assert strategy.state is not None
    view.models.append(strategy.state.adapter.vector.astype(np.float64))
    return view.moves() / (settings.privacy.clipping_norm * _share(settings))


@dataclass(frozen=True)
class _View:
    """What the adversary sees: released models, and releases themselves where the noise is each
    client's own and others' would be added to it.
    """

    settings: Settings
    models: list[Floats] = field(default_factory=list)
    """The global adapter before each round, and after the last."""
    releases: dict[tuple[int, int], Floats] = field(default_factory=dict)
    """``(round, place of the client) -> its release``, in the update's own units."""

    def overhear(self, stage: str, node: int, reply: Message) -> Message:
        """Keep a release on its way to the server."""
        if _overheard(self.settings) and stage == "train" and reply.has_content():
            size, place = self.models[-1].size, node - FIRST_NODE
            plan = release_plan(self.settings, size, self.settings.privacy.clipping_norm)
            release = read_release(reply.content, plan.size).astype(np.float64)
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
    """Whether single releases are looked at: many clients each add noise to their own."""
    return settings.privacy.unit == "client" and settings.privacy.noise == "client"


def _share(settings: Settings) -> float:
    """What one clipped canary moves the adversary's view by, over C."""
    if _overheard(settings):
        return 1.0
    kept = settings.federation.min_clients - 2 * _colluders(settings)
    prompts = settings.grpo.prompts_per_step if settings.privacy.unit == "prompt" else 1
    return 1 / (prompts * kept)


def _colluders(settings: Settings) -> int:
    return settings.robust.trim if settings.robust.rule == "trimmed_mean" else 0


def _adapter(dimension: int) -> AdapterState:
    zeros = np.zeros(dimension, np.float32)
    return AdapterState(zeros, {"A": np.eye(2, dtype=np.float32)}, _LAYOUT)


@dataclass(frozen=True)
class _Clients:
    """Makes each node's client: canaries first, colluders last, others between that add nothing."""

    settings: Settings
    planted: Coins
    view: _View

    def __call__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> Client:
        place, last = int(node_config["partition-id"]), int(node_config["num-partitions"]) - 1
        log = self.view.models if place == 0 else None
        if place > last - _colluders(settings):
            return Constant(high=True)
        if settings.privacy.unit == "client":
            return ClientCanary(settings, place, bool(self.planted[place]), log)
        if place == 0:
            return PromptCanaries(settings, self.planted, self.view.models)
        return Constant(high=False)
