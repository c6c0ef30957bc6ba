"""The ServerApp of a run: from the run configuration to the summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedgrpo.federation.server.checkpoint import FILE, ServerState, load_checkpoint
from fedgrpo.federation.server.evaluation import Evaluator
from fedgrpo.federation.server.parts import check_parts
from fedgrpo.federation.server.strategy import FedGRPO
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.crypto import derive_key, kept_key
from fedgrpo.ground.errors import FedGRPOError, RunError
from fedgrpo.ground.run_files import ADAPTER, BEST_ADAPTER, SECRET, SERVER_LOCK, alone
from fedgrpo.ledger import FILE as LEDGER
from fedgrpo.ledger import Ledger, hash_file
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.export.card import RunFacts, write_card
from fedgrpo.privacy.accounting.guarantees import check_budget, guarantees
from fedgrpo.report.records import RewardSummary, RobustSummary, RoundRow, Summary
from fedgrpo.report.trackers import Tracked, tracking
from fedgrpo.report.writer import RunWriter
from fedgrpo.robust import describe
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols.base import trimmed_by

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """What a server needs of the model, as functions, so that a test needs no model.

    Attributes
    ----------
    initial:
        Makes the adapter that the run begins with.
    evaluator:
        Makes the evaluator.
    save:
        Writes the final adapter into a folder, in PEFT's own format.
    """

    initial: Callable[[Settings], AdapterState]
    evaluator: Callable[[Settings], Evaluator]
    save: Callable[[Settings, AdapterState, Path], None]


def make_server_app(strategy: type[FedGRPO] = FedGRPO, *, model: Model | None = None) -> ServerApp:
    """Build the ServerApp of a run.

    It fills ``run.directory`` (or ``runs/RUN_ID``) with ``metrics.jsonl``, ``ledger.jsonl``,
    ``status.json``, the checkpoint, the final and the best adapter, ``report.png`` and
    ``summary.json``, and resumes a run that it finds there. All its randomness, and the ledger's
    signing key, come from ``run.secret``, which it makes there with mode 0600.

    Parameters
    ----------
    strategy:
        :class:`FedGRPO` or a subclass of it.
    model:
        None loads the base model that the settings name.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = Settings.from_run_config(context.run_config)
        serve(grid, settings, _run_dir(settings, context.run_id), strategy, model)

    return app


def serve(
    grid: Grid,
    settings: Settings,
    run_dir: Path,
    strategy: Callable[..., FedGRPO] = FedGRPO,
    model: Model | None = None,
    callbacks: Sequence[object] = (),
) -> FedGRPO:
    """Run all rounds that are left in a run directory, and write everything that outlives them.

    Parameters
    ----------
    grid:
        Flower's connection to the nodes.
    settings:
        Of the run.
    run_dir:
        Where to write; a run that lies there is resumed.
    strategy, model:
        See :func:`make_server_app`.
    callbacks:
        Told of each round.

    Returns
    -------
    FedGRPO
        The strategy, after its last round.
    """
    started, writer = time.time(), RunWriter(run_dir)
    with alone(run_dir, SERVER_LOCK, cure="wait for it, or end it"):
        # Another run's directory is refused before its status can be touched.
        load_checkpoint(run_dir / FILE, settings.fingerprint())
        try:
            # Before the model is loaded, which may take minutes.
            check_budget(settings)
            check_parts(settings)
            model, tracked = model or local_model(), Tracked(run_dir, settings.to_run_config())
            with tracking(settings.run.report_to, tracked) as trackers:
                made = _strategy(settings, writer, strategy, model, (*callbacks, *trackers))
                _serve(grid, made, writer, model, started)
        except (KeyboardInterrupt, SystemExit):
            # Ctrl-C, or Flower's way to end a server on SIGTERM.
            writer.interrupt("the server was stopped", "the same command resumes")
            raise
        except BaseException as error:
            writer.fail(*_explain(error))
            raise
    return made


def _run_dir(settings: Settings, run_id: int) -> Path:
    return Path(settings.run.directory or Path("runs") / str(run_id)).absolute()


def local_model() -> Model:
    """Load the base model that the settings name, once a process."""
    from fedgrpo.federation.server.evaluator import initial_adapter, local_evaluator, save_adapter

    return Model(initial_adapter, local_evaluator, save_adapter)


def _strategy(
    settings: Settings,
    writer: RunWriter,
    strategy_type: Callable[..., FedGRPO],
    model: Model,
    callbacks: Sequence[object],
) -> FedGRPO:
    """The strategy of a run directory: its randomness and its ledger are the run's own."""
    secret = kept_key(writer.run_dir / SECRET)
    return strategy_type(
        settings,
        evaluator=model.evaluator(settings),
        writer=writer,
        checkpoint=writer.run_dir / FILE,
        secret=secret,
        ledger=Ledger(writer.run_dir / LEDGER, derive_key(secret, "ledger")),
        callbacks=callbacks,
        keep_best=lambda strategy: _save(strategy, model, writer.run_dir / BEST_ADAPTER),
    )


def _save(strategy: FedGRPO, model: Model, folder: Path) -> None:
    """Write the adapter as it stands, with its card."""
    state = _state(strategy)
    model.save(strategy.settings, state.adapter, folder)
    write_card(folder, _facts(strategy, state))


def _state(strategy: FedGRPO) -> ServerState:
    if strategy.state is None:
        raise RunError("the strategy kept no state", cure="let an overridden start call super()")
    return strategy.state


def _serve(grid: Grid, strategy: FedGRPO, writer: RunWriter, model: Model, started: float) -> None:
    """Run all rounds, and write adapter, summary and picture."""
    settings = strategy.settings
    strategy.start(grid, write_adapter(model.initial(settings)))
    state = _state(strategy)
    if not strategy.ended:
        _save(strategy, model, writer.run_dir / ADAPTER)
        strategy.end(_hashes(writer.run_dir))
    wall = time.time() - (settings.run.started_at or started)
    writer.summary(summarise(settings, strategy, state, writer.rows(), wall))
    _draw(writer.run_dir)


def _facts(strategy: FedGRPO, state: ServerState) -> RunFacts:
    """What the adapter's card says. The root is that before the end, which hashes the card."""
    settings, progress = strategy.settings, state.progress
    return RunFacts(
        settings=settings,
        rounds=progress.round - 1,
        privacy=guarantees(settings, progress.charged),
        layout=state.adapter.layout,
        root=strategy.root,
    )


def _hashes(run_dir: Path) -> dict[str, str]:
    """SHA-256 (hex) of the final adapter's files, by their path in the run directory."""
    files = sorted(path for path in (run_dir / ADAPTER).rglob("*") if path.is_file())
    return {path.relative_to(run_dir).as_posix(): hash_file(path) for path in files}


def summarise(
    settings: Settings, strategy: FedGRPO, state: ServerState, rows: list[RoundRow], wall_s: float
) -> Summary:
    """Sum a run up.

    Parameters
    ----------
    settings, strategy, state:
        Of the run; times are those of this process.
    rows:
        All rounds, those before a resume included.
    wall_s:
        Seconds since the run was started.
    """
    measured = [row for row in rows if row.sampled is not None and row.greedy is not None]
    if not measured:
        raise RunError("the run was never evaluated", cure="give the strategy an evaluator")
    first, last = measured[0], measured[-1]
    applied = [row for row in rows if row.round and row.applied]
    groups, clients = (applied[-1].buckets, applied[-1].finished) if applied else (0, 0)
    busy, robust = strategy.train_s + strategy.evaluate_s, settings.robust
    return Summary(
        reward=RewardSummary.between(first, last),
        rounds=rows[-1].round,
        wall_s=wall_s,
        overhead_share=max(0.0, 1 - busy / wall_s),
        privacy=list(guarantees(settings, state.progress.charged)),
        robust=RobustSummary(
            robust.rule,
            trimmed_by(settings),
            groups,
            describe(robust.rule, groups, robust.trim, clients, robust.momentum),
        ),
        dropped=state.progress.dropped,
        skipped_rounds=state.progress.skipped,
        adapter=ADAPTER,
        settings=settings.fingerprint(),
        version=VERSION,
    )


def _draw(run_dir: Path) -> None:
    """Draw the run's picture. A run is finished without one."""
    try:
        from fedgrpo.report.plots import plot_run

        plot_run(run_dir)
    except Exception:
        told = {"code": "picture-undrawn"}
        LOG.exception("the picture of %s could not be drawn", run_dir, extra=told)


def _explain(error: BaseException) -> tuple[str, str]:
    """Problem and cure for the run's status."""
    if isinstance(error, FedGRPOError):
        return error.problem, error.cure
    # Text of foreign code could quote a prompt.
    return type(error).__name__, "see the server's log; the same command resumes"
