"""``fedgrpo budget``: what privacy costs, before anything is spent."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedgrpo.cli.options import Overrides, parse_overrides
from fedgrpo.cli.outcome import explained
from fedgrpo.cli.planning.outlook import Outlook, print_outlook
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings.bounds import check_bounds

if TYPE_CHECKING:
    from fedgrpo.privacy.accounting.budget import Budget
    from fedgrpo.settings import Settings


class Unit(StrEnum):
    """Whose presence is hidden."""

    CLIENT = "client"
    PROMPT = "prompt"


def _figure(meaning: str, least: int | None = None) -> Any:
    """A figure that is not known unless it is given."""
    return typer.Option(help=meaning, show_default=False, min=least)


def budget(  # noqa: PLR0913 - Typer makes an option of each argument.
    scenario: Annotated[
        Path | None,
        typer.Argument(help="TOML file of settings to plan from.", show_default=False),
    ] = None,
    *,
    unit: Annotated[
        Unit, typer.Option(help="What is hidden: a client's whole contribution, or one prompt.")
    ] = Unit.CLIENT,
    noise_multiplier: Annotated[float | None, _figure("Noise over sensitivity, z.")] = None,
    rounds: Annotated[int | None, _figure("Rounds.")] = None,
    epsilon: Annotated[float | None, _figure("Epsilon to aim for.")] = None,
    delta: Annotated[float, typer.Option(help="Chance that the bound fails.")] = 1e-5,
    prompts: Annotated[int | None, _figure("Least prompts of a client (unit prompt).", 1)] = None,
    prompts_per_round: Annotated[
        int | None, _figure("Expected prompts of a client in a round (unit prompt).")
    ] = None,
    cohort: Annotated[int | None, _figure("Clients in a round.", 1)] = None,
    trim: Annotated[int, typer.Option(min=0, help="Values trimmed at either end.")] = 0,
    bucket_size: Annotated[int, typer.Option(min=1, help="Clients behind one value.")] = 1,
    dimension: Annotated[int | None, _figure("Trainable values.", 1)] = None,
    client_noise: Annotated[
        bool,
        typer.Option("--client-noise", help="Each client adds noise, before trimming."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    overrides: Overrides = None,
) -> None:
    """Plan a privacy budget: two of noise multiplier, rounds and epsilon give the third.

    Beside epsilon for a unit that is replaced by nothing (an empty prompt, a zero contribution) it
    states that for one replaced by another, and for copies of a prompt at several clients. With a
    cohort and a dimension it also says how much noise stands against the signal. A scenario
    brings all of these, and --set changes them; then --epsilon asks for the noise multiplier that
    it would take.
    """
    with explained():
        from fedgrpo.privacy.accounting.budget import Cohort, plan_budget

        if scenario is not None:
            _refuse_beside_a_scenario(
                noise_multiplier=noise_multiplier,
                rounds=rounds,
                prompts=prompts,
                prompts_per_round=prompts_per_round,
                cohort=cohort,
            )
            print_outlook(_of_scenario(scenario, overrides, epsilon, dimension), as_json)
            return
        _check_figures(noise_multiplier, rounds, delta)
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
        seen = Outlook(planned, taking_part, dimension, shared_noise=not client_noise)
        print_outlook(seen, as_json)


def _check_figures(noise_multiplier: float | None, rounds: int | None, delta: float) -> None:
    """Hold figures against the bounds of the settings that they stand for; raises SettingsError."""
    if noise_multiplier is not None:
        check_bounds("privacy.noise_multiplier", noise_multiplier)
    if rounds is not None:
        check_bounds("rounds", rounds)
    check_bounds("privacy.delta", delta)


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
    from fedgrpo.privacy.accounting.budget import Cohort, budget_of
    from fedgrpo.settings.protocols import protocol_of
    from fedgrpo.settings.scenario import load_scenario

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
    member = _towards_a_member(settings, planned)
    shared = protocol_of(settings).noise_place(settings) != "client"
    return Outlook(planned, Cohort.of(settings), dimension, member, shared)


def _towards_a_member(settings: Settings, planned: Budget) -> float | None:
    from fedgrpo.privacy import guarantees
    from fedgrpo.settings.protocols import protocol_of

    if not protocol_of(settings).members:
        return None
    noise = {"noise_multiplier": planned.noise_multiplier}
    privacy = settings.privacy.model_copy(update=noise)
    spent = guarantees(settings.model_copy(update={"privacy": privacy}), planned.rounds)
    return max(held.epsilon for held in spent)
