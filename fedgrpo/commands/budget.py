"""``fedgrpo budget``: what privacy costs, before anything is spent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fedgrpo.commands.options import Overrides, parse_overrides
from fedgrpo.commands.outcome import explained
from fedgrpo.errors import SettingsError

if TYPE_CHECKING:
    from fedgrpo.privacy.budget import Budget, Cohort
    from fedgrpo.settings import Settings


class Unit(StrEnum):
    """Whose presence is hidden."""

    CLIENT = "client"
    PROMPT = "prompt"


@dataclass(frozen=True)
class Outlook:
    """A budget, and what it means for a cohort if one is known.

    Attributes
    ----------
    budget:
        Noise, rounds and epsilon.
    cohort:
        Who takes part.
    dimension:
        Trainable values, d.
    member_epsilon:
        Epsilon towards one curious member of the committee, where there is one.
    """

    budget: Budget
    cohort: Cohort | None = None
    dimension: int | None = None
    member_epsilon: float | None = None

    @property
    def warning(self) -> str:
        """Why nothing can be learnt; empty if it can or is not known."""
        if self.cohort is None or self.dimension is None:
            return ""
        return self.cohort.warning(self.budget.noise_multiplier, self.dimension)

    def figures(self) -> dict[str, object]:
        """Everything that is known, by name."""
        found: dict[str, object] = asdict(self.budget)
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
        return found


WORDS = {
    "unit": "What is hidden",
    "noise_multiplier": "Noise multiplier z",
    "rounds": "Rounds",
    "epsilon": "Epsilon",
    "member_epsilon": "Epsilon towards a committee member",
    "delta": "Delta",
    "sample_rate": "Chance that a prompt is in a round",
    "holders": "Holders in a round n",
    "trim": "Trimmed at either end k",
    "bucket_size": "Holders behind a trimmed value s",
    "prompts": "Expected prompts of a holder B",
    "after_trimming": "Noise is added after trimming",
    "honest_mates": "Mates whose noise is relied on h",
    "kept": "Holders kept n - 2ks",
    "dimension": "Trainable values d",
    "noise_to_signal": "R = noise / largest signal",
    "signal_to_noise": "Largest signal / noise",
    "learnable_dimension": "Trainable values for R = 1.5",
}
"""How the table names the figures."""

PROMPTS_ONLY = frozenset({"sample_rate", "prompts"})
"""Figures that say nothing where the unit is a client."""


def _figure(meaning: str) -> Any:
    """A figure that is not known unless it is given."""
    return typer.Option(help=meaning, show_default=False)


def budget(  # noqa: PLR0913 - Typer makes an option of each argument.
    scenario: Annotated[
        Path | None,
        typer.Argument(help="TOML file of settings to plan from.", show_default=False),
    ] = None,
    *,
    unit: Annotated[
        Unit, typer.Option(help="What is hidden: a holder's whole contribution, or one prompt.")
    ] = Unit.CLIENT,
    noise_multiplier: Annotated[float | None, _figure("Noise over sensitivity, z.")] = None,
    rounds: Annotated[int | None, _figure("Rounds.")] = None,
    epsilon: Annotated[float | None, _figure("Epsilon to aim for.")] = None,
    delta: Annotated[float, typer.Option(help="Chance that the bound fails.")] = 1e-5,
    prompts: Annotated[int | None, _figure("Least prompts of a holder (unit prompt).")] = None,
    prompts_per_round: Annotated[
        int | None, _figure("Expected prompts of a holder in a round (unit prompt).")
    ] = None,
    cohort: Annotated[int | None, _figure("Holders in a round.")] = None,
    trim: Annotated[int, typer.Option(help="Values trimmed at either end.")] = 0,
    bucket_size: Annotated[int, typer.Option(help="Holders behind one value.")] = 1,
    dimension: Annotated[int | None, _figure("Trainable values.")] = None,
    client_noise: Annotated[
        bool,
        typer.Option("--client-noise", help="Each holder adds noise, before trimming."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    overrides: Overrides = None,
) -> None:
    """Plan a privacy budget: two of noise multiplier, rounds and epsilon give the third.

    With a cohort and a dimension it also says how much noise stands against the signal. A scenario
    brings all of these, and --set changes them; then --epsilon asks for the noise multiplier that
    it would take.
    """
    with explained():
        from fedgrpo.privacy.budget import Cohort, plan_budget

        if scenario is not None:
            _refuse_beside_a_scenario(
                noise_multiplier=noise_multiplier,
                rounds=rounds,
                prompts=prompts,
                prompts_per_round=prompts_per_round,
                cohort=cohort,
            )
            _print(_of_scenario(scenario, overrides, epsilon, dimension), as_json)
            return
        planned = plan_budget(
            unit.value,
            delta,
            noise_multiplier=noise_multiplier,
            rounds=rounds,
            epsilon=epsilon,
            sample_rate=_sample_rate(unit, prompts, prompts_per_round),
        )
        expected = prompts_per_round or 1
        taking_part = (
            Cohort(cohort, trim, bucket_size, expected, not client_noise) if cohort else None
        )
        _print(Outlook(planned, taking_part, dimension), as_json)


def _refuse_beside_a_scenario(**options: float | None) -> None:
    """Refuse options whose values a scenario brings."""
    if given := [name for name, value in options.items() if value is not None]:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingsError(
            f"{named} cannot go with a scenario, which has its own",
            cure="change the scenario's with --set, for example --set rounds=20",
        )


def _sample_rate(unit: Unit, prompts: int | None, per_round: int | None) -> float:
    """Chance that a unit is in a round. Clients are in every round: the server picks them."""
    if unit is Unit.CLIENT:
        if prompts is not None or per_round is not None:
            raise SettingsError(
                "--prompts and --prompts-per-round say nothing about unit 'client'",
                cure="leave them out, or add --unit prompt",
            )
        return 1.0
    if prompts is None or per_round is None or not 1 <= per_round <= prompts:
        raise SettingsError(
            f"--unit prompt needs --prompts-per-round between 1 and --prompts; they are "
            f"{per_round} and {prompts}",
            cure="for example --prompts 2000 --prompts-per-round 64",
        )
    return per_round / prompts


def _of_scenario(
    scenario: Path, overrides: list[str] | None, epsilon: float | None, dimension: int | None
) -> Outlook:
    from fedgrpo.privacy.budget import Cohort, budget_of
    from fedgrpo.scenario import load_scenario

    settings = load_scenario(scenario, parse_overrides(overrides), Path.cwd())
    planned = budget_of(settings, epsilon)
    if planned is None:
        raise SettingsError(
            f"{scenario} has privacy.unit = 'none': it spends nothing because it promises nothing",
            cure="set privacy.unit to 'prompt' or 'client'",
        )
    if dimension is None:
        from fedgrpo.model.dimension import adapter_dimension

        dimension = adapter_dimension(settings.model, settings.adapter)
    return Outlook(planned, Cohort.of(settings), dimension, _towards_a_member(settings, planned))


def _towards_a_member(settings: Settings, planned: Budget) -> float | None:
    from fedgrpo.privacy import guarantees
    from fedgrpo.settings_checks import noise_by

    if noise_by(settings) != "committee":
        return None
    noise = {"noise_multiplier": planned.noise_multiplier}
    privacy = settings.privacy.model_copy(update=noise)
    spent = guarantees(settings.model_copy(update={"privacy": privacy}), planned.rounds)
    return max(held.epsilon for held in spent)


def _print(outlook: Outlook, as_json: bool) -> None:
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
    if outlook.warning:
        Console(stderr=True).print(
            outlook.warning, style="yellow", markup=False, highlight=False, soft_wrap=True
        )


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
