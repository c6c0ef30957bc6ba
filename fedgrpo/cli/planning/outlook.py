"""A privacy budget and what it means for a cohort, for people and for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedgrpo.privacy.accounting.budget import Budget, Cohort


@dataclass(frozen=True)
class Outlook:
    """A budget, and what it means for a cohort if one is known."""

    budget: Budget
    """Noise, rounds and epsilon."""
    cohort: Cohort | None = None
    """Who takes part."""
    dimension: int | None = None
    """Trainable values, d."""
    member_epsilon: float | None = None
    """Epsilon towards one curious member of the committee, where there is one."""
    shared_noise: bool = True
    """Whether one noise covers all clients, or each relies on others' noise."""

    @property
    def warning(self) -> str:
        """Why nothing can be learnt; empty if it can or is not known."""
        if self.cohort is None or self.dimension is None:
            return ""
        return self.cohort.warning(self.budget.noise_multiplier, self.dimension)

    def figures(self) -> dict[str, object]:
        """Everything that is known, by name."""
        from fedgrpo.privacy.accounting.budget import neighbours_of_budget

        beside = neighbours_of_budget(self.budget, shared=self.shared_noise)
        found: dict[str, object] = asdict(self.budget) | {"replaced_epsilon": beside.replaced}
        found["shared_noise"] = self.shared_noise
        found |= {f"epsilon_of_{m}_copies": epsilon for m, epsilon in beside.copies.items()}
        if self.member_epsilon is not None:
            found["member_epsilon"] = self.member_epsilon
        if self.cohort is None:
            return found
        noise = self.budget.noise_multiplier
        found |= asdict(self.cohort) | {
            "kept": self.cohort.kept,
            "learnable_dimension": self.cohort.learnable_dimension(noise),
        }
        if self.dimension is not None:
            ratio = self.cohort.noise_to_signal(noise, self.dimension)
            found |= {
                "dimension": self.dimension,
                "noise_to_signal": ratio,
                "signal_to_noise": 1 / ratio,
                "warning": self.warning,
            }
            found |= self._expected(self.cohort, self.dimension, ratio)
        return found

    def _expected(self, cohort: Cohort, dimension: int, ratio: float) -> dict[str, object]:
        """What runs that were measured make of this noise. They hid prompts."""
        from fedgrpo.privacy.accounting import expectation

        if self.budget.unit != "prompt":
            return {}
        root = math.sqrt(dimension)
        return {
            "noise_per_value": ratio / root,
            "signal_per_value": expectation.SIGNAL / root,
            "expected_share": expectation.expected_share(ratio),
            "clients_wanted": expectation.clients_for(
                cohort, self.budget.noise_multiplier, dimension
            ),
            "prompts_wanted": expectation.prompts_for(self.budget, cohort, dimension),
            "expected_from": expectation.SOURCE,
        }


WORDS = {
    "unit": "What is hidden",
    "noise_multiplier": "Noise multiplier z",
    "rounds": "Rounds",
    "epsilon": "Epsilon, replaced by nothing",
    "replaced_epsilon": "Epsilon, replaced by another",
    "epsilon_of_2_copies": "Epsilon of 2 copies at as many clients",
    "epsilon_of_5_copies": "Epsilon of 5 copies",
    "epsilon_of_10_copies": "Epsilon of 10 copies",
    "shared_noise": "One noise covers all copies",
    "member_epsilon": "Epsilon towards a committee member",
    "delta": "Delta",
    "sample_rate": "Chance that a prompt is in a round",
    "clients": "Clients in a round n",
    "trim": "Trimmed at either end k",
    "bucket_size": "Clients behind a trimmed value s",
    "prompts": "Expected prompts of a client B",
    "after_trimming": "Noise is added after trimming",
    "kept": "Clients kept n - 2ks",
    "dimension": "Trainable values d",
    "noise_to_signal": "R = noise / largest signal",
    "signal_to_noise": "Largest signal / noise",
    "learnable_dimension": "Trainable values for R = 1.5",
    "noise_per_value": "Noise on a trained value, in C",
    "signal_per_value": "Mean gradient per value, at the start *",
    "expected_share": "Share of the gain without noise *",
    "clients_wanted": "Clients in a round for 80 % of it *",
    "prompts_wanted": "Prompts of each client for 80 % of it *",
}
"""How the table names the figures."""

PROMPTS_ONLY = frozenset({"sample_rate", "prompts", "shared_noise"})
"""Figures that say nothing where the unit is a client."""


def print_outlook(outlook: Outlook, as_json: bool) -> None:
    """Print the figures, as a table or as JSON; a warning goes to the error stream."""
    figures = outlook.figures()
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    table = Table(box=box.ROUNDED, show_header=False, title="Privacy budget", title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, words in WORDS.items():
        if name in figures and not (figures["unit"] == "client" and name in PROMPTS_ONLY):
            table.add_row(words, _written(figures[name]))
    Console().print(table)
    if source := figures.get("expected_from"):
        typer.echo(f"* measured on {source}")
    if outlook.warning:
        Console(stderr=True).print(
            outlook.warning, style="yellow", markup=False, highlight=False, soft_wrap=True
        )


def _written(value: object) -> str:
    if value is None:
        return "beyond what was measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
