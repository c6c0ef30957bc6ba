"""``fedgrpo personalise``: a second adapter that never leaves its site, over a shared one that
stays as it is.

Source: a global adapter, and after it a local one that is never sent (FedDPA-F, Yang et al., arXiv
2403.19211); put together by adding both, without that paper's weights for each example.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import file_hash
from fedgrpo.ground.run_files import SHARED_ADAPTER
from fedgrpo.settings.scenario import settings_from
from fedgrpo.standalone.chosen import WEIGHTS, Chosen, on_top
from fedgrpo.standalone.preparation import prepare
from fedgrpo.standalone.training import Job, conduct


def personalise(
    shared_run: Path,
    prompts: str,
    *,
    steps: int,
    best: bool = False,
    overrides: Mapping[str, object] | None = None,
    run_dir: Path | None = None,
    fresh: bool = False,
    console: Console | None = None,
) -> Path:
    """Train an adapter on a site's own prompts over the frozen one of a run.

    No privacy is applied: the adapter, and all that is measured with it, is as private as the
    prompts. The directory is its owner's alone, and holds a copy of the shared adapter, without
    which the personal one is of no use. Measured on prompts held out of the file; the figure before
    the first step is that of the shared adapter alone.

    Parameters
    ----------
    shared_run:
        Directory of a run with an adapter.
    prompts:
        The site's own: a file as ``data.source`` takes it.
    steps:
        Optimiser steps.
    best:
        Whether the shared adapter is the best one on held-out prompts, not the last.
    overrides, run_dir, fresh, console:
        As for :func:`fedgrpo.standalone.train`.

    Returns
    -------
    Path
        The run directory.

    Raises
    ------
    FedGRPOError
        As for :func:`fedgrpo.standalone.train`; RunError also if the run is a personal one itself.
    """
    chosen = Chosen.of(shared_run, best=best)
    if chosen.below:
        raise RunError(
            f"{shared_run} is itself personal", cure="name the run whose adapter is shared"
        )
    own = {"data.source": prompts, "rounds": steps, "grpo.steps": 1, "privacy.unit": "none"}
    # The run's held-out prompts are of others; a site may name them all the same.
    wanted = {"evaluation.source": "", **(overrides or {}), **own}
    settings = settings_from({**chosen.settings.model_dump(), **wanted}, Path.cwd())
    job = Job(
        f"{shared_run.resolve().name}-personal",
        settings,
        "personalise",
        lambda: prepare(settings, adapter=on_top(chosen)),
        lambda folder: keep_shared(chosen.adapter, folder),
    )
    return conduct(job, run_dir=run_dir, fresh=fresh, console=console)


def keep_shared(adapter: Path, folder: Path) -> None:
    """Close a run's directory to others, and keep the shared adapter in it.

    Raises
    ------
    RunError
        If another adapter is there: then it is another one's continuation.
    """
    folder.chmod(0o700)
    kept = folder / SHARED_ADAPTER
    if not kept.exists():
        draft = folder / f".{SHARED_ADAPTER}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(adapter, draft)
        draft.rename(kept)
    if file_hash(kept / WEIGHTS) != file_hash(adapter / WEIGHTS):
        raise RunError(
            f"{folder} was begun over another shared adapter",
            cure="begin anew with --fresh, or name another --run-dir",
        )
