"""``fedgrpo.simulate``: a whole federation as one call, for notebooks and experiments.

>>> import fedgrpo
>>> result = fedgrpo.simulate({"rounds": 8, "privacy.unit": "none"})
>>> [row.sampled for row in result.history if row.sampled is not None]
>>> result.save("adapter")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from fedgrpo.data.prompts import PromptRow, as_row
from fedgrpo.federation.node.clients.given import Given
from fedgrpo.federation.server.app import Model, local_model
from fedgrpo.federation.server.checkpoint import FILE, ServerState, load_checkpoint
from fedgrpo.federation.server.evaluator import LocalEvaluator
from fedgrpo.federation.server.strategy import FedGRPO
from fedgrpo.federation.simulation.batched.coverage import check_attack
from fedgrpo.federation.simulation.flower_run import is_installed, run_in_flower
from fedgrpo.federation.simulation.in_process import run_in_process
from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.federation.simulation.result import Result
from fedgrpo.ground.errors import DataError, RunError, SettingsError
from fedgrpo.privacy.accounting.guarantees import guarantees
from fedgrpo.report.reader import read_rows
from fedgrpo.report.records import RoundRow
from fedgrpo.report.run_directory import choose
from fedgrpo.rewards.composite import RewardArgument, RewardMixture
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import settings_from

Rows = Sequence[PromptRow | Mapping[str, Any]]
"""Prompts with the columns that their rewards need."""


def simulate(
    settings: Settings | Mapping[str, Any] | str | Path,
    *,
    clients: Sequence[Rows] | None = None,
    reward: RewardArgument | None = None,
    held_out: Rows | None = None,
    in_process: bool = True,
    callbacks: Sequence[object] = (),
    directory: str | Path | None = None,
    strategy: type[FedGRPO] = FedGRPO,
) -> Result:
    """Run a federation of simulated clients.

    Parameters
    ----------
    settings:
        Settings, a mapping (nested or with dotted keys), or the path of a scenario. Attackers and
        dropouts are those of ``simulation``.
    clients:
        Each client's own prompts; takes the place of ``data`` and ``simulation.clients``.
    reward:
        A function in TRL's convention, several, or a weighted mixture, in the place of
        ``reward.functions``. It judges in this process; under prompt-level privacy one prompt's
        group a call, and is trusted to remember nothing between calls.
    held_out:
        Prompts that no client has, on which the server measures. None takes the settings' own,
        unless ``clients`` are given without an ``evaluation.source``: nothing is measured then.
    in_process:
        Run everything in this process, all clients in one batch where the settings let them; else
        side by side in Flower's simulation runtime, which needs a ``directory``.
    callbacks:
        Told of each round: see :class:`fedgrpo.ground.callbacks.Callback`.
    directory:
        Run directory, as ``fedgrpo simulate`` makes it: rows, ledger, checkpoint, picture. The same
        call resumes a run that was killed there. None keeps everything in memory.
    strategy:
        :class:`FedGRPO` or a subclass of it.

    Raises
    ------
    FedGRPOError
        Before the start, of the kind that fits, with the setting and the cure.
    RunFailedError
        If the run began and failed.
    """
    read, given = _read(settings, clients, reward)
    rows = _held_out(read, given, held_out)
    preflight(read, given, rows)
    check_attack(read, in_process=in_process)
    if not in_process:
        _check_portable(given, rows, strategy, directory)
    elif directory is not None and rows == ():
        raise SettingsError(
            "nothing is held out to measure on, which a run directory's summary tells",
            cure="give held_out, or evaluation.source; or leave directory out",
        )
    model = _model(read, given, rows)
    with _claimed(read, directory) as run_dir:
        if in_process or run_dir is None:
            made = run_in_process(
                read, run_dir, given=given, model=model, strategy=strategy, callbacks=callbacks
            )
            return _result(made.history, made.state, run_dir, read, model)
        quiet = Console(quiet=True)
        run_in_flower(read, run_dir, near=Path.cwd(), console=quiet, callbacks=callbacks)
        stored = load_checkpoint(run_dir / FILE, read.fingerprint())
        state = stored.state if stored else None
        return _result(tuple(read_rows(run_dir)), state, run_dir, read, model)


def _read(
    settings: Settings | Mapping[str, Any] | str | Path,
    clients: Sequence[Rows] | None,
    reward: RewardArgument | None,
) -> tuple[Settings, Given]:
    read = settings_from(settings, Path.cwd())
    mixture = None if reward is None else RewardMixture.of(reward)
    if clients is None:
        return read, Given(reward=mixture)
    rows = tuple(_rows(own, f"clients[{place}]") for place, own in enumerate(clients))
    read = Settings.from_run_config(read.to_run_config() | {"simulation.clients": len(rows)})
    return read, Given(rows, mixture)


def _rows(rows: Rows, source: str) -> tuple[PromptRow, ...]:
    """Check rows as those of a file are.

    Raises
    ------
    DataError
        If one cannot be used, or there are none.
    """
    read = tuple(
        row if isinstance(row, PromptRow) else as_row(row, source, number)
        for number, row in enumerate(rows, start=1)
    )
    if not read:
        raise DataError(f"{source} has no rows", cure="give every client at least one prompt")
    return read


def _held_out(
    settings: Settings, given: Given, held_out: Rows | None
) -> tuple[PromptRow, ...] | None:
    """What the server measures on: nothing if empty, and what the settings say if None."""
    if held_out is not None:
        return _rows(held_out, "held_out")
    return () if given.rows and not settings.evaluation.source else None


def _check_portable(
    given: Given,
    rows: tuple[PromptRow, ...] | None,
    strategy: type[FedGRPO],
    directory: str | Path | None,
) -> None:
    """Refuse what cannot reach the processes of Flower's runtime."""
    if given.rows or given.reward or rows or strategy is not FedGRPO:
        raise SettingsError(
            "prompts, rewards and strategies of this process do not reach Flower's runtime",
            cure="name files in the settings, or leave in_process at True",
        )
    if not is_installed():
        raise RunError(
            "Flower's simulation runtime is not installed",
            cure="pip install 'fedgrpo[simulation]', or leave in_process at True",
        )
    if directory is None:
        raise SettingsError(
            "a run in Flower's runtime needs a directory", cure="give one: directory='runs/mine'"
        )


def _model(settings: Settings, given: Given, rows: tuple[PromptRow, ...] | None) -> Model:
    """The server's base model, shared with other runs of the same settings where they are all that
    decides.
    """
    if rows is None and given.reward is None:
        return local_model()
    own = LocalEvaluator(settings, rows, given.reward)
    return Model(
        initial=lambda _: own.initial(),
        evaluator=lambda _: own,
        save=lambda _, adapter, folder: own.save(adapter, folder),
    )


@contextmanager
def _claimed(settings: Settings, directory: str | Path | None) -> Iterator[Path | None]:
    """Hold the run directory, if there is to be one."""
    if directory is None:
        yield None
        return
    name, cwd = Path(directory).name, Path.cwd()
    run = choose(name, settings, run_dir=Path(directory), fresh=False, base=cwd)
    with run.claim(settings):
        yield run.path


def _result(
    history: tuple[RoundRow, ...],
    state: ServerState | None,
    run_dir: Path | None,
    settings: Settings,
    model: Model,
) -> Result:
    if state is None:
        raise RunError("the run left no state", cure="let an overridden start call super()")
    privacy = guarantees(settings, state.progress.charged)
    return Result(settings, history, state.adapter, tuple(privacy), run_dir, model)
