"""How hard prompts are for a policy as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo import GRPOTrainer
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.model.lora import Adapter
from fedgrpo.settings.scenario import load_scenario
from fedgrpo.standalone.chosen import Chosen, on_top


def pass_rates(by: Path, rows: Sequence[PromptRow], samples: int) -> Mapping[int, float]:
    """Share of a prompt's completions that are worth ``grpo.passing_reward``, by the row's
    position; rows that the model cannot take are not in it.

    Parameters
    ----------
    by:
        Directory of a run, whose adapter is asked; or a scenario, whose base model is.
    rows:
        Prompts.
    samples:
        Least completions of each; whole groups of ``grpo.group_size`` are sampled.
    """
    if by.is_dir():
        chosen = Chosen.of(by, best=False)
        adapter, settings = on_top(chosen), chosen.settings
    else:
        settings = load_scenario(by, {"privacy.unit": "none"}, Path.cwd())
        adapter = Adapter.from_settings(settings)
    trainer = GRPOTrainer.from_settings(settings, rows, adapter=adapter)
    held_out = HeldOut(adapter, trainer.collector.reward, rows, trainer.settings, settings.seed)
    solved, drawn = held_out.solved(samples)
    places = {row.number: place for place, row in enumerate(rows)}
    found = zip(held_out.collector.rows, solved, strict=True)
    return {places[row.number]: float(count) / drawn for row, count in found}
