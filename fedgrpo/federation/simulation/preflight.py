"""Everything that can be known to be wrong before the first process starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from fedgrpo.data.failing import failing_words
from fedgrpo.data.ownership import (
    all_prompts,
    evaluation_prompts,
    held_out_and_trained_on,
    left_out,
    node_prompts,
)
from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import units_of
from fedgrpo.federation.node.clients.given import Given
from fedgrpo.federation.server.checks import server_checks
from fedgrpo.ground.errors import DataError, SettingsError, all_at_once
from fedgrpo.settings import DataSettings, EvaluationSettings, Settings
from fedgrpo.settings.protocols import protocol_of


def preflight(
    settings: Settings,
    given: Given | None = None,
    held_out: Sequence[PromptRow] | None = None,
) -> tuple[str, ...]:
    """Refuse a simulation that cannot work on this machine, and warn of one that cannot learn.

    All faults are told at once. Reward files and prompt files are loaded for good, since nothing
    less tells whether they can be; models and datasets on the Hub are left to the run.

    Parameters
    ----------
    settings:
        Of the run.
    given:
        Prompts and reward that take the place of the settings' own.
    held_out:
        What takes the place of the settings' own held-out prompts.

    Returns
    -------
    tuple[str, ...]
        Warnings.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, with the setting, its value and the cure.
    """
    rows = None if given is None else given.rows
    checks: list[Callable[[Settings], object]] = [
        _check_cohort,
        _check_machine,
        *server_checks(),
        _check_attack,
    ]
    own_reward = given is not None and given.reward is not None
    if not own_reward and rows is not None:
        checks.append(_load_rewards)
    if rows is None:
        checks.append(_check_prompts)
        if not own_reward:
            checks.append(lambda read: _check_start(read, held_out))
    else:
        checks.append(lambda read: _check_fewest(read, rows, "the smallest list in clients"))
    all_at_once([partial(check, settings) for check in checks])
    found = [*_row_warnings(settings, rows, held_out), *_model_warnings(settings)]
    return tuple(filter(None, found))


def _row_warnings(
    settings: Settings,
    given: Sequence[Sequence[PromptRow]] | None,
    held_out: Sequence[PromptRow] | None,
) -> Iterator[str]:
    """What is odd about rows that are read from files here."""
    if given is not None or _on_the_hub(settings.data):
        return
    yield from failing_words(left_out(settings))
    if held_out is None and not _on_the_hub(settings.evaluation):
        yield held_out_and_trained_on(settings)


def _check_cohort(settings: Settings) -> None:
    clients, federation = settings.simulation.clients, settings.federation
    for name, needed in (("min_clients", federation.min_clients), ("cohort", federation.cohort)):
        if clients < needed:
            raise SettingsError(
                f"simulation.clients = {clients} is less than federation.{name} = {needed}",
                cure=f"set simulation.clients >= {needed}, or lower federation.{name}",
            )
    # Some may drop out, and fewer of them are not always harder to trim.
    protocol, asked = protocol_of(settings), federation.cohort or clients
    counts = range(asked, federation.min_clients - 1, -1)
    hardest = min(counts, key=partial(protocol.most_trim, settings))
    named = "federation.cohort" if federation.cohort else "simulation.clients"
    named = named if hardest == asked else "clients that do not drop out"
    protocol.check_cohort(settings, hardest, named)


def _check_machine(settings: Settings) -> None:
    wanted, present = settings.simulation.cpus_per_client, os.cpu_count() or 1
    if wanted > present:
        raise SettingsError(
            f"simulation.cpus_per_client = {wanted}, but this machine has {present} cores",
            cure=f"set simulation.cpus_per_client <= {present}",
        )
    if settings.simulation.gpus_per_client > 0:
        import torch

        if not torch.cuda.is_available():
            raise SettingsError(
                f"simulation.gpus_per_client = {settings.simulation.gpus_per_client}, but "
                "no GPU is visible here",
                cure="set simulation.gpus_per_client = 0.0, or install a torch build for this GPU",
            )


def _check_attack(settings: Settings) -> None:
    from fedgrpo.attacks.attacks import ATTACKS

    ATTACKS.check(settings.simulation.attack)


def _check_start(settings: Settings, held_out: Sequence[PromptRow] | None) -> None:
    """Hold prompts, rewards and tokenizer against each other. What is on the Hub is left to the
    run.
    """
    from fedgrpo.grpo.rollout.usable import check_start

    if _on_the_hub(settings.data) or _on_the_hub(settings.evaluation):
        _load_rewards(settings)
    else:
        own = partial(evaluation_prompts, settings)
        measured = (lambda: held_out) if held_out else own
        all_at_once(check_start(settings, partial(all_prompts, settings), measured))


def _load_rewards(settings: Settings) -> None:
    from fedgrpo.rewards.loading import load_reward

    all_at_once(
        partial(load_reward, name)
        for name in (*settings.reward.functions, *settings.reward.evaluation)
    )


def _check_prompts(settings: Settings) -> None:
    data = settings.data
    if data.source == "tasks":
        _check_tasks(data)
    elif not _on_the_hub(data):
        _check_shares(settings)


def _on_the_hub(section: DataSettings | EvaluationSettings) -> bool:
    return section.source.startswith("hf:")


def _check_tasks(data: DataSettings) -> None:
    if data.unit:
        raise SettingsError(
            f"data.unit = {data.unit!r}, but built-in tasks' prompts belong to nobody: each is a "
            "unit of its own",
            cure="leave data.unit empty, or name a file with data.source",
        )
    if data.prompts_per_client < data.min_prompts:
        raise DataError(
            f"data.prompts_per_client = {data.prompts_per_client} is less than data.min_prompts = "
            f"{data.min_prompts}: every client would refuse",
            cure="raise the first or lower the second",
        )


def _check_shares(settings: Settings) -> None:
    clients = settings.simulation.clients
    node = {"partition-id": clients - 1, "num-partitions": clients}
    _check_fewest(settings, [node_prompts(settings, node)], settings.data.source)


def _check_fewest(settings: Settings, clients: Sequence[Sequence[PromptRow]], source: str) -> None:
    """Refuse clients with fewer units than the stated epsilon assumes."""
    if settings.privacy.unit != "prompt":
        return
    data = settings.data
    fewest = min(len(units_of(rows, data.unit)) for rows in clients)
    if fewest < data.min_prompts:
        raise DataError(
            f"{source} leaves a client {fewest} units, fewer than data.min_prompts = "
            f"{data.min_prompts}: it would refuse",
            cure=f"lower data.min_prompts to {fewest}, or simulation.clients",
        )


def _model_warnings(settings: Settings) -> list[str]:
    """What half precision costs here, and what noise does to a model of this size."""
    from fedgrpo.model.base import precision_advice

    return [*precision_advice(settings.model), _noise_warning(settings)]


def _noise_warning(settings: Settings) -> str:
    """Whether a client-level run drowns in its noise, which grows with the square root of d."""
    from fedgrpo.model.base import model_source

    if settings.privacy.unit != "client" or not Path(model_source(settings.model.name)).is_dir():
        return ""
    from fedgrpo.model.dimension import adapter_dimension
    from fedgrpo.privacy.accounting.budget import Cohort

    dimension = adapter_dimension(settings.model, settings.adapter)
    return Cohort.of(settings).warning(settings.privacy.noise_multiplier, dimension)
