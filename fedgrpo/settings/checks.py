"""Settings that are sound one by one and cannot go together."""

from __future__ import annotations

import datetime

from fedgrpo.ground.parts import brings_code, part_name
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.base import impossible
from fedgrpo.settings.protocols.committee import check_named
from fedgrpo.settings.sections.metrics import OWN
from fedgrpo.settings.sections.table import read_table
from fedgrpo.settings.sections.tree import Tree as Settings  # Whole, or on the way to it.


def check_together(settings: Settings) -> None:
    """Refuse a combination that cannot work.

    Raises
    ------
    SettingsError
        Names the settings, their values and the cure.
    """
    for check in (
        check_named,
        _check_protocol,
        _check_cohort,
        _check_norm_check,
        _check_momentum,
        _check_prompt_unit,
        _check_quantised,
        _check_unit_column,
        _check_data,
        _check_task_clients,
        _check_rewards,
        _check_metrics,
        _check_credit,
        _check_simulation,
    ):
        check(settings)


def _check_protocol(settings: Settings) -> None:
    protocol_of(settings).check(settings)


def _check_cohort(settings: Settings) -> None:
    cohort, least = settings.federation.cohort, settings.federation.min_clients
    if 0 < cohort < least:
        raise impossible(
            f"federation.cohort = {cohort} is less than federation.min_clients = {least}, so that "
            "no round would count",
            f"set federation.cohort >= {least} (more, where some drop out), or 0 to ask all",
        )


def _check_quantised(settings: Settings) -> None:
    if settings.model.quantise and settings.privacy.unit == "prompt":
        raise impossible(
            f"model.quantise = {settings.model.quantise!r} cannot go with privacy.unit = 'prompt': "
            "quantised weights have not been shown to keep prompts apart to the bit",
            "set model.quantise = '', or privacy.unit to 'client' or 'none'",
        )


def _check_norm_check(settings: Settings) -> None:
    privacy = settings.privacy
    if (
        part_name(settings.robust.rule) == "norm_checked"
        and privacy.unit != "none"
        and privacy.noise == "client"
    ):
        raise impossible(
            "robust.rule = 'norm_checked' cannot go with privacy.noise = 'client': the noise, not "
            "the update, decides how long a release is",
            "set privacy.noise = 'server', or robust.rule = 'nnm_trimmed_mean'",
        )


def _check_momentum(settings: Settings) -> None:
    """Refuse a mean over rounds where it would be more than post-processing of noised releases."""
    privacy, decay = settings.privacy, settings.robust.momentum
    if not decay or privacy.unit == "none":
        return
    if privacy.noise == "server":
        raise impossible(
            f"robust.momentum = {decay} cannot go with privacy.noise = 'server': a client would "
            "send again in later rounds what it learned in earlier ones, and epsilon counts each "
            "round's own noise alone",
            "set robust.momentum = 0; or privacy.noise = 'client' and aggregation.protocol = "
            "'plain', where a mean of noised releases costs no epsilon",
        )
    if protocol_of(settings).group_size(settings) > 1:
        raise impossible(
            f"robust.momentum = {decay} cannot go with privacy.unit = {privacy.unit!r} under "
            f"aggregation.protocol = {settings.aggregation.protocol!r}: the same release would be "
            "in several rounds' sums, among other peers' noise in each, and the epsilon against "
            "the server alone counts that noise as if it were there once",
            "set robust.momentum = 0, or aggregation.protocol = 'plain'",
        )


def _check_prompt_unit(settings: Settings) -> None:
    if settings.privacy.unit != "prompt":
        return
    if settings.grpo.steps != 1:
        raise impossible(
            f"grpo.steps = {settings.grpo.steps} cannot go with privacy.unit = 'prompt', which "
            "sends one clipped and noised gradient a round",
            "set grpo.steps = 1 and raise grpo.prompts_per_step or rounds instead",
        )
    if settings.grpo.passes * settings.grpo.minibatches != 1:
        raise impossible(
            f"grpo.passes = {settings.grpo.passes} and grpo.minibatches = "
            f"{settings.grpo.minibatches} cannot go with privacy.unit = 'prompt', which uses each "
            "completion for one gradient",
            "set both to 1",
        )
    if settings.privacy.adaptive and settings.privacy.quantile != 0.5:
        raise impossible(
            f"privacy.quantile = {settings.privacy.quantile} cannot go with privacy.unit = "
            "'prompt': how many prompts were sampled is secret, and only a half of them reads the "
            "same without that number",
            "set privacy.quantile = 0.5",
        )
    if settings.grpo.max_resamples:
        raise impossible(
            f"grpo.max_resamples = {settings.grpo.max_resamples} cannot go with privacy.unit = "
            "'prompt', which samples prompts by independent coins, not by their rewards",
            "set grpo.max_resamples = 0",
        )
    if settings.grpo.engine != "own":
        raise impossible(
            f"grpo.engine = {settings.grpo.engine!r} cannot go with privacy.unit = 'prompt': it "
            "has not passed the test that prompts cannot change a bit of each other",
            "set grpo.engine = 'own', or privacy.unit = 'client'",
        )
    if settings.grpo.gradient_checkpointing:
        raise impossible(
            "grpo.gradient_checkpointing cannot go with privacy.unit = 'prompt', whose gradients "
            "are taken in shapes that were tried without it",
            "leave it out, and lower grpo.tokens_per_batch where memory is short",
        )
    _check_local_optimiser(settings)
    if settings.grpo.memory_gb:
        raise impossible(
            f"grpo.memory_gb = {settings.grpo.memory_gb} cannot go with privacy.unit = 'prompt', "
            "whose shapes follow from public figures, not from memory",
            "leave it out, and lower grpo.tokens_per_batch where memory is short",
        )
    if settings.grpo.prompts_per_step > settings.data.min_prompts:
        raise impossible(
            f"grpo.prompts_per_step = {settings.grpo.prompts_per_step} is more than "
            f"data.min_prompts = {settings.data.min_prompts}",
            "lower the first or raise the second",
        )


def _check_local_optimiser(settings: Settings) -> None:
    """Refuse what has no use under prompt-level privacy: the server takes the steps."""
    fields = type(settings.grpo).model_fields
    for name in (
        "weight_decay",
        "warmup_steps",
        "lr_scheduler_type",
        "gradient_accumulation_steps",
    ):
        value = getattr(settings.grpo, name)
        if value != fields[name].default:
            raise impossible(
                f"grpo.{name} = {value!r} cannot go with privacy.unit = 'prompt', which sends the "
                "clipped gradient and takes no local step",
                "leave it out (server.learning_rate and server.final_rate say how far a round "
                "goes), or set privacy.unit = 'client'",
            )


def _check_unit_column(settings: Settings) -> None:
    data = settings.data
    if settings.privacy.unit == "prompt" or (not data.unit and data.unit_rows == 1):
        return
    raise impossible(
        f"data.unit = {data.unit!r} and data.unit_rows = {data.unit_rows} cannot go with "
        f"privacy.unit = {settings.privacy.unit!r}: they say which rows are hidden together",
        "set privacy.unit = 'prompt', or leave both out",
    )


def _check_data(settings: Settings) -> None:
    data = settings.data
    if data.source == "tasks" and data.system_prompt:
        raise impossible(
            "data.system_prompt cannot go with built-in tasks, whose prompts are no chats",
            "name a file with data.source, or leave it out",
        )
    try:
        datetime.date.fromisoformat(data.today)
    except ValueError:
        raise impossible(
            f"data.today = {data.today!r} is no date", "write it as 2026-01-31"
        ) from None
    for ours, theirs in read_table(data.columns).items():
        if not isinstance(theirs, str) or not theirs:
            raise impossible(
                f"data.columns gives {ours!r} the name {theirs!r}", "name a column of the source"
            )


def _check_task_clients(settings: Settings) -> None:
    data, clients = settings.data, settings.simulation.clients
    held: dict[str, object] = read_table(data.task_clients)
    for task, count in held.items():
        if task not in data.tasks or type(count) is not int or count < 1:
            raise impossible(
                f"data.task_clients gives {task!r} to {count!r} clients",
                f"name tasks of data.tasks ({', '.join(data.tasks)}), and whole numbers from 1 on",
            )
    owners, all_held = sum(data.held().values()), len(held) == len(data.tasks)
    if held and (owners > clients or (owners < clients and all_held)):
        raise impossible(
            f"data.task_clients = {data.task_clients} gives tasks to {owners} of "
            f"simulation.clients = {clients}" + ", and nothing to the others" * (owners < clients),
            f"share {clients} clients out, or leave a task to those who have none",
        )


def _check_credit(settings: Settings) -> None:
    grpo = settings.grpo
    paired = (grpo.guidance == "critique") == (part_name(grpo.loss) == "critique_grpo")
    # What a user's own guide or loss goes with, its author knows.
    if not (paired or brings_code(grpo.guidance) or brings_code(grpo.loss)):
        raise impossible(
            f"grpo.guidance = {grpo.guidance!r} cannot go with grpo.loss = {grpo.loss!r}: "
            "refinements and the loss that tells them apart need each other",
            "set grpo.preset = 'critique_grpo', or neither",
        )
    if grpo.guidance == "contexts" and grpo.repetition_penalty != 1:
        raise impossible(
            f"grpo.repetition_penalty = {grpo.repetition_penalty} cannot go with grpo.guidance = "
            "'contexts', whose completions stand behind two prompts with other tokens each",
            "set grpo.repetition_penalty = 1.0, or another guidance",
        )
    if grpo.credit != "group" and grpo.max_resamples:
        raise impossible(
            f"grpo.max_resamples = {grpo.max_resamples} cannot go with grpo.credit = "
            f"{grpo.credit!r}, which learns from groups that agree, too",
            "set grpo.max_resamples = 0",
        )


def _check_rewards(settings: Settings) -> None:
    reward = settings.reward
    functions, weights = len(reward.functions), len(reward.weights)
    if not functions:
        raise impossible("reward.functions is empty", "name one, for example 'exact_match'")
    if len(set(reward.functions)) != functions:
        raise impossible("reward.functions names one twice", "name it once, weighted")
    if len(set(reward.evaluation)) != len(reward.evaluation):
        raise impossible("reward.evaluation names one twice", "name it once")
    if weights not in (0, functions):
        raise impossible(
            f"reward.weights has {weights} numbers for {functions} functions", "give one each"
        )
    if not reward.minimum < reward.maximum:
        raise impossible(
            f"reward.minimum = {reward.minimum} is not below reward.maximum = {reward.maximum}",
            "give the range of the weighted reward",
        )


def _check_metrics(settings: Settings) -> None:
    figures = settings.privacy.coordinates
    for name in figures:
        if figures.count(name) > 1:
            raise impossible(
                f"privacy.metrics has two figures that are called {name.removeprefix(OWN)!r}",
                "name it once, or give one function another name",
            )


def _check_simulation(settings: Settings) -> None:
    sim = settings.simulation
    if sim.faulty > sim.clients:
        raise impossible(
            f"simulation.byzantine, droppers, stragglers and newcomers are {sim.faulty} together, "
            f"more than simulation.clients = {sim.clients}",
            "lower the faults or add clients",
        )
    if sim.large and settings.data.source != "tasks":
        raise impossible(
            f"simulation.large = {sim.large}, but data.source = {settings.data.source!r} is split "
            "evenly",
            "leave it at 0, or set data.source = 'tasks'",
        )
