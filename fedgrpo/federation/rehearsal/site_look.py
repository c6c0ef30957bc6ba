"""Process: what a site's own people want to know of its prompts, model and reward beforehand.

Asked on standard input, answered on standard output, a line of JSON each. Nothing is written, and
nothing is sent. Adversary: who chose the settings. Code that they name runs here only if the site's
own policy allows it, with whatever it may do; built-in parts are fedgrpo's own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from fedgrpo.data.prompts import PromptRow, collate_columns
from fedgrpo.data.survey import Survey
from fedgrpo.data.units import units_of
from fedgrpo.federation.node.clients.resident import use_cores
from fedgrpo.federation.rehearsal import prompt_check
from fedgrpo.federation.rehearsal.dry_run import foretold_round, rehearsed
from fedgrpo.ground.chats import canonical, plain_text
from fedgrpo.ground.errors import FaultsError, FedGRPOError
from fedgrpo.ground.parts import brings_code
from fedgrpo.ground.records import to_json
from fedgrpo.grpo.rollout.experience import judge
from fedgrpo.model.base import choose_device
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.calling.judge import MissingColumnError
from fedgrpo.rewards.composite import check_columns
from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, isolated_mixture
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Policy
from fedgrpo.site.checked import broken_files, with_columns
from fedgrpo.site.declared import declared_in
from fedgrpo.site.limits import allowed, named_code
from fedgrpo.site.look import (
    Fault,
    Look,
    SeenMemory,
    SeenModel,
    SeenPrompts,
    SeenReward,
    SeenRound,
)
from fedgrpo.site.places import DEVICE, at_home, own_names
from fedgrpo.site.site import find_policy

TRIED = 10
"""Prompts whose made-up completions are judged."""
REHEARSED = 8
"""Prompts that are sampled for."""
_ANY_LENGTH = 10**9

T = TypeVar("T")


def main() -> None:
    """Answer one question, and end. What libraries and rewards print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    settings = Settings.from_run_config(asked["settings"])
    found = look_at_site(settings, asked["config"], rehearse=asked["rehearse"])
    answers.write(to_json(found) + "\n")
    answers.close()


def look_at_site(settings: Settings, config: Mapping[str, Scalar], *, rehearse: bool) -> Look:
    """See whether a node of this configuration could take part with these settings.

    Parameters
    ----------
    config:
        The node's own: ``prompts``, what ``columns`` are called in them, and ``policy`` if it has
        one.
    rehearse:
        Whether to sample for a few prompts.

    Returns
    -------
    Look
        With faults in the place of what could not be seen.
    """
    settings = with_columns(settings, str(config.get("columns", "")))
    file = find_policy(config)
    policy = _policy(file)
    use_cores(settings, config)
    settings = with_columns(settings, str(config.get("columns", "")))
    home = at_home(settings, config)
    if isinstance(device := _tried(lambda: choose_device(home.model.device)), Fault):
        return Look(device=_of_the_site(device) if DEVICE in config else device)
    survey = _tried(lambda: prompt_check.surveyed(str(config["prompts"]), home, policy))
    adapter = _tried(lambda: Adapter.from_settings(home, any_weights=policy.any_weights))
    if isinstance(survey, Fault) or isinstance(adapter, Fault):
        return Look(
            prompts=survey if isinstance(survey, Fault) else _prompts(survey, settings, policy),
            model=adapter if isinstance(adapter, Fault) else _model(adapter),
        )
    unread = list(_unread(settings, policy, config))
    whole = bool(survey.rows)
    rewards = Rewards(home, own_names(policy.stateless_rewards, config))
    return Look(
        prompts=_prompts(survey, settings, policy),
        columns=_lacking(rewards, survey.rows) if whole and not unread else [],
        model=_model(adapter),
        reward=_tried(lambda: _reward(settings, rewards, adapter, survey.rows, unread)),
        memory=_tried(lambda: _memory(settings, policy, adapter, survey)) if whole else None,
        round=_tried(lambda: _round(settings, config, file))
        if whole and rehearse and not unread
        else None,
    )


@dataclass(frozen=True)
class Rewards:
    """Rewards of a run where they lie here.

    Attributes
    ----------
    home:
        Settings, at home on this machine.
    stateless:
        Those that the site's people vouch for, likewise.
    """

    home: Settings
    stateless: tuple[str, ...]

    def alone(self, name: str) -> IsolatedMixture:
        """One of them, where no prompt is seen beside another one, and nothing is kept."""
        alone = self.home.reward.model_copy(update={"functions": (name,), "weights": ()})
        return isolated_mixture(alone, stateless=self.stateless)


def _of_the_site(fault: Fault) -> Fault:
    """A device that is not there, where the site's own file asks for it."""
    return replace(fault, cure="write device = 'auto' in site.toml, or the number of another GPU")


def _policy(file: Path | None) -> Policy:
    """Before a site has joined there may be none. One that cannot be read is told elsewhere."""
    found = _tried(lambda: Policy.from_toml(file)) if file else Policy()
    return Policy() if isinstance(found, Fault) else found


def _tried(work: Callable[[], T]) -> T | Fault:
    """What it comes to, or what it raises."""
    try:
        return work()
    except FaultsError as error:
        return Fault(type(error).__name__, error.problem, error.faults[0].cure)
    except FedGRPOError as error:
        return Fault.of(error)


def _prompts(survey: Survey, settings: Settings, policy: Policy) -> SeenPrompts:
    limit = min(policy.longest_prompt_tokens or _ANY_LENGTH, settings.grpo.max_prompt_length)
    different = {canonical([plain_text(row.prompt), row.columns]) for row in survey.rows}
    return SeenPrompts(
        rows=survey.count,
        units=len(units_of(survey.rows, settings.data.unit)),
        copies=len(survey.rows) - len(different),
        longest=max(survey.lengths, default=0),
        too_long=sum(length > limit for length in survey.lengths),
        limit=limit,
        unusable=dict(survey.refused),
    )


def _model(adapter: Adapter) -> SeenModel:
    return SeenModel(fingerprint=adapter.base.fingerprint, device=str(adapter.base.device))


def _unread(settings: Settings, policy: Policy, config: Mapping[str, Scalar]) -> Iterator[str]:
    """Code that the settings name and nobody at the site has allowed, or that has changed since."""
    if any(broken_files(policy, settings, config)):
        yield from filter(brings_code, settings.reward.functions)
        return
    for name in settings.reward.functions:
        if brings_code(name) and not allowed(name, policy.rewards):
            yield name
    yield from (name for _, name in named_code(settings) if not allowed(name, policy.code))


def _lacking(rewards: Rewards, rows: Sequence[PromptRow]) -> list[Fault]:
    """Columns that rewards cannot do without."""
    columns = collate_columns(rows)

    def check(name: str) -> None:
        with closing(rewards.alone(name)) as mixture:
            check_columns(mixture, columns)

    found = [_tried(partial(check, name)) for name in rewards.home.reward.functions]
    return [fault for fault in found if fault and fault.kind == MissingColumnError.__name__]


def _reward(
    settings: Settings,
    rewards: Rewards,
    adapter: Adapter,
    rows: Sequence[PromptRow],
    unread: list[str],
) -> SeenReward:
    """Judge two made-up completions of each of a few prompts by each function that may run."""
    chosen = rows[:TRIED]
    seconds = {}
    own = rewards.home.reward.functions
    for name, here in zip(settings.reward.functions, own, strict=True):
        if name not in unread:
            with closing(rewards.alone(here)) as mixture:
                mixture.bind(adapter)
                began = time.monotonic()
                for row in chosen:
                    right = str(row.columns.get(settings.grpo.answer_column, ""))
                    judge(mixture, [row], [right, "0"], [[0], [0]], 2)
                seconds[name] = (time.monotonic() - began) / max(len(chosen), 1)
    return SeenReward(prompts=len(chosen), seconds=seconds, unread=unread)


def _memory(settings: Settings, policy: Policy, adapter: Adapter, survey: Survey) -> SeenMemory:
    declared = declared_in(policy, settings).longest_prompt_tokens
    forecast = foretold_round(settings, adapter, max(survey.lengths), declared)
    forecast.check(private=settings.privacy.unit == "prompt")
    return SeenMemory(peak=forecast.peak, free=forecast.free)


def _round(settings: Settings, config: Mapping[str, Scalar], file: Path | None) -> SeenRound:
    figures = rehearsed(at_home(settings, config), str(config["prompts"]), REHEARSED)
    own = {**config, "policy": str(file)}
    order_s = prompt_check.order_seconds(own, settings) if file else 0.0
    return SeenRound(
        reward=figures.reward,
        zero_signal=figures.zero_signal,
        round_s=figures.round_s,
        order_s=order_s,
    )


if __name__ == "__main__":
    main()
