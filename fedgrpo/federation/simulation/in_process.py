"""A run in this process: the same strategy, client app and run directory, without Ray or sockets.

All clients compute in one batch on one base model where the settings let them
(:mod:`fedgrpo.federation.simulation.batched`), else one after another.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fedgrpo.federation.node.client_app import make_client_app
from fedgrpo.federation.node.clients.given import GIVEN_NOTHING, Given
from fedgrpo.federation.node.clients.local_clients import LocalClients
from fedgrpo.federation.server.app import Model, local_model, serve
from fedgrpo.federation.server.strategy import FedGRPO
from fedgrpo.federation.simulation.batched.clients import BatchedClients
from fedgrpo.federation.simulation.batched.coverage import engine_words, left_out
from fedgrpo.federation.simulation.local_grid import LocalGrid
from fedgrpo.federation.simulation.local_superlink import LOG
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.crypto import kept_key, new_key
from fedgrpo.ground.errors import FedGRPOError, RunFailedError
from fedgrpo.ground.run_files import NODES
from fedgrpo.report.console import shown
from fedgrpo.settings import Scalar, Settings

LOG_ = logging.getLogger(__name__)

SIMULATION, MEANS = "simulation.secret", "simulation.means"
"""Names of what the batched engine keeps beside what simulated nodes do: its secret, and clients'
means over rounds.
"""

GIVEN = "given"
"""Key of a node's configuration that tells prompts given in Python from others."""


def run_in_process(
    settings: Settings,
    run_dir: Path | None,
    *,
    given: Given | None = None,
    model: Model | None = None,
    strategy: type[FedGRPO] = FedGRPO,
    callbacks: Sequence[object] = (),
    console: Console | None = None,
) -> FedGRPO:
    """Run what is left of a run.

    Parameters
    ----------
    settings:
        Of the run.
    run_dir:
        Claimed by this process; None keeps everything in memory.
    given:
        Prompts and reward that take the place of the settings' own.
    model:
        Makes the first adapter, measures and saves; None loads what the settings name.
    strategy:
        :class:`FedGRPO` or a subclass of it.
    callbacks:
        Told of each round.
    console:
        Where to show progress; None shows none.

    Returns
    -------
    FedGRPO
        After its last round.

    Raises
    ------
    RunFailedError
        If the run began and failed, and a run directory can resume it.
    """
    model, clients = model or local_model(), _clients(settings, run_dir, given or GIVEN_NOTHING)
    grid = _grid(settings, run_dir, given or GIVEN_NOTHING, clients)
    LOG_.info("%s", engine_words(settings))
    if console:
        console.print(engine_words(settings), highlight=False, soft_wrap=True)
    watched = partial(_watched, strategy, clients)
    if run_dir is None:
        made = watched(settings, evaluator=model.evaluator(settings), callbacks=callbacks)
        made.start(grid, write_adapter(model.initial(settings)))
        return made
    with shown(run_dir, settings.rounds, console), _logged(run_dir / LOG):
        try:
            return serve(grid, settings, run_dir, watched, model, callbacks)
        except FedGRPOError as error:
            raise RunFailedError(error.problem, cure=error.cure) from error


def _clients(
    settings: Settings, run_dir: Path | None, given: Given
) -> LocalClients | BatchedClients:
    """Who computes; what it draws from is kept, so that a resumed run repeats its last round."""
    if left_out(settings):
        return LocalClients(given)
    if run_dir is None:
        return BatchedClients(settings, given, new_key())
    kept = run_dir / NODES
    return BatchedClients(settings, given, kept_key(kept / SIMULATION), shelf=kept / MEANS)


def _watched(
    strategy: type[FedGRPO],
    clients: LocalClients | BatchedClients,
    settings: Settings,
    **arguments: Any,
) -> FedGRPO:
    """Make the strategy, and let attackers among the clients see what it releases."""
    made = strategy(settings, **arguments)
    if isinstance(clients, BatchedClients):
        clients.last = lambda: made.state.last if made.state and made.state.last.size else None
    return made


def _grid(
    settings: Settings,
    run_dir: Path | None,
    given: Given,
    clients: LocalClients | BatchedClients,
) -> LocalGrid:
    count = settings.simulation.clients

    def node_config(partition: int) -> dict[str, Scalar]:
        config: dict[str, Scalar] = {"partition-id": partition, "num-partitions": count}
        return config | ({GIVEN: given.digest(partition)} if given.rows else {})

    return LocalGrid(
        make_client_app(clients),
        count,
        node_config=node_config,
        run_config=settings.to_run_config() | {"run.directory": str(run_dir or "")},
        run_id=secrets.randbits(62),  # A resumed run is another one to its nodes.
    )


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send the package's log to a file of the run, where it does not tear the view."""
    log, handler = logging.getLogger("fedgrpo"), logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    kept = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(kept[0])
        log.propagate = kept[1]
