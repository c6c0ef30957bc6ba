"""A policy is proposed from what a site's own people can see, and held against a run before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedgrpo.federation.rehearsal import prompt_check
from fedgrpo.federation.rehearsal.proposal import (
    TRIAL_S,
    OwnFigures,
    meant_for,
    propose,
    work_seconds,
)
from fedgrpo.ground.errors import DataError, PolicyError, all_at_once
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import CURES, Entry, Policy, Refusal, Site, broken_limits, check_spending
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.checked import broken_files
from fedgrpo.site.declared import broken_declarations, declared_in
from fedgrpo.site.places import at_home, reward_file, reward_hash, reward_key

AROUND_BYTES = 10**9
"""Of a node's processes besides the model's, with room."""


def write_proposal(
    file: Path,
    settings: Settings,
    config: Mapping[str, Scalar],
    counted: Sequence[Entry] = (),
) -> None:
    """Write a policy that allows exactly these settings, with figures of these prompts, and rewards
    of files as they are.

    Parameters
    ----------
    file:
        To write.
    settings:
        What was agreed.
    config:
        What the node's own is to be: ``prompts``, and where models and rewards lie.
    counted:
        What the site's account has already: the new limits are beyond it.

    Raises
    ------
    DataError, ModelError, RewardError
        What keeps the site from taking part, with a cure.
    """
    anything = Policy(prompts_declared=10**9, longest_prompt_tokens=10**9)
    found = prompt_check.find(config, settings, anything)
    _refuse(prompt_check.problems(found, anything))
    with tempfile.TemporaryDirectory(prefix="fedgrpo-") as scratch:
        trial = Path(scratch) / "policy.toml"
        hashes = _reward_hashes(settings, config)
        own = OwnFigures(found.units, found.longest, 0.0, hashes, tuple(counted))
        trial.write_text(propose(settings, own, answer_s=TRIAL_S), "utf-8")
        order_s = prompt_check.order_seconds({**config, "policy": str(trial)}, settings)
    own = replace(own, work_s=work_seconds(order_s))
    replace_file(file, propose(settings, own).encode(), mode=0o600)


def stale(
    file: Path, settings: Settings, config: Mapping[str, Scalar], *, whole_run: bool = True
) -> bool:
    """Whether a policy would refuse these settings, or the rewards' files as they are, or cannot be
    read; parameters are those of :func:`accept`.
    """
    try:
        return bool(_refusals(Site.open(file), settings, config, whole_run=whole_run))
    except PolicyError:
        return True


def proposed_for(file: Path, settings: Settings, config: Mapping[str, Scalar]) -> bool:
    """Whether a file is a policy that was proposed for these very settings, and serves still."""
    if not file.exists() or stale(file, settings, config):
        return False
    return meant_for(settings) in file.read_text("utf-8").splitlines()


def accept(
    file: Path, settings: Settings, config: Mapping[str, Scalar], *, whole_run: bool = True
) -> None:
    """Hold a policy against a run and the prompts, and let the node answer with them.

    Parameters
    ----------
    file:
        The policy.
    settings:
        Of the run.
    config:
        What the node's own is to be: ``prompts``, where models and rewards lie, and ``state``, the
        folder that gets the stamp.
    whole_run:
        Whether the account must pay for all rounds: not of a run that may be under way.

    Raises
    ------
    PolicyError, DataError, FaultsError
        Everything that would keep the node from answering.
    """
    site = Site.open(file)
    found = prompt_check.find(config, settings, site.policy)
    _refuse(prompt_check.problems(found, site.policy))
    broken = _refusals(site, settings, config, whole_run=whole_run)
    all_at_once([partial(_refuse_run, code, problem, file) for code, problem in broken])
    prompt_check.leave_stamp(config, found)


def _refusals(
    site: Site, settings: Settings, config: Mapping[str, Scalar], *, whole_run: bool
) -> list[tuple[Refusal, str]]:
    policy, counted = site.policy, site.spending.read().counted
    found = [
        *broken_limits(policy, settings),
        *broken_declarations(policy, settings),
        *broken_files(policy, settings, config),
    ]
    try:
        if whole_run:
            check_spending(policy, [*counted, *[round_entry(settings)] * settings.rounds])
    except PolicyError as error:
        found.append((Refusal(error.code), error.problem))
    return found


def _reward_hashes(settings: Settings, config: Mapping[str, Scalar]) -> dict[str, str]:
    """SHA-256 (hex) of the files of the run's rewards, by their names without options."""
    files = {reward_key(name): reward_file(name, config) for name in settings.reward.functions}
    return {key: found for key, file in files.items() if file and (found := reward_hash(file))}


def most_memory(file: Path, settings: Settings, config: Mapping[str, Scalar]) -> int:
    """Bytes that a node with this policy may take before something is wrong: twice what a round is
    foretold to take, beside what is loaded, a worker's limit, and the processes around it.

    Called by a process that has loaded the model.
    """
    from fedgrpo.federation.node.clients.resident import resident
    from fedgrpo.federation.rehearsal.dry_run import foretold_round
    from fedgrpo.grpo.forecast import TIMES
    from fedgrpo.model.memory import peak_memory
    from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits

    declared = declared_in(Policy.from_toml(file), settings)
    adapter = resident(at_home(settings, config), any_weights=declared.any_weights)
    longest = declared.longest_prompt_tokens or settings.grpo.max_prompt_length
    round_ = foretold_round(settings, adapter, longest, longest).peak
    worker = WorkerLimits().memory_mb * 10**6
    return peak_memory() + int(TIMES * round_) + worker + AROUND_BYTES


def _refuse(problems: Iterable[str]) -> None:
    if said := "; ".join(problem.replace("\n  cure:", " (cure:") + ")" for problem in problems):
        raise DataError(f"these prompts cannot be used: {said}", cure="mend them, and try again")


def _refuse_run(code: Refusal, problem: str, file: Path) -> None:
    raise PolicyError(
        f"policy {file} would refuse the agreed run, {code}: {problem}",
        code=code,
        cure=f"change that line, or agree on other settings ({CURES[code]})",
    )
