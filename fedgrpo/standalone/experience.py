"""Experiences of a site's prompts under an adapter that a run has released."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from math import isnan
from pathlib import Path

from fedgrpo.data.prompts import load_prompts
from fedgrpo.data.sources import Source
from fedgrpo.ground.chats import plain_text
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import file_hash
from fedgrpo.ground.records import Experience
from fedgrpo.grpo import GRPOTrainer
from fedgrpo.report.reader import read_run
from fedgrpo.standalone.chosen import Chosen, on_top


def prompt_id(text: str) -> str:
    """SHA-256 (hex) of a prompt's text, by which its experiences are found."""
    return hashlib.sha256(text.encode()).hexdigest()


def experienced(run_dir: Path, prompts: str) -> Iterator[Experience]:
    """Sample a group of completions of each prompt under a run's adapter, and judge them.

    The seed comes from the operating system: what the site keeps follows from no public number.

    Parameters
    ----------
    run_dir:
        A run that is no personal one: its adapter was released.
    prompts:
        The site's own file.

    Raises
    ------
    RunError
        If the adapter is a personal one.
    """
    chosen = Chosen.of(run_dir, best=False)
    if chosen.below:
        raise RunError(
            f"{run_dir} is personal, and its adapter was never released",
            cure="name the run whose adapter is shared",
        )
    rows = load_prompts(Source.of(chosen.settings.data, prompts))
    trainer = GRPOTrainer.from_settings(chosen.settings, rows, adapter=on_top(chosen))
    trainer.start_round(None)
    collector, last = trainer.collector, read_run(run_dir).rows[-1].round
    weights = file_hash(chosen.weights)
    step = trainer.settings.prompts_per_step
    for at in range(0, len(collector.rows), step):
        places = range(at, min(at + step, len(collector.rows)))
        found = collector.collect(places)
        size = found.rollout.group_size
        for place, text in enumerate(trainer.policy.decode(found.rollout)):
            named = found.rewards.per_function.items()
            yield Experience(
                prompt=prompt_id(plain_text(collector.rows[at + place // size].prompt)),
                completion=text,
                reward=float(found.rewards.total[place]),
                rewards={n: None if isnan(v[place]) else float(v[place]) for n, v in named},
                adapter=weights,
                run=run_dir.resolve().name,
                round=last,
                at=time.time(),
            )
