"""A policy is proposed from what a site's own people can see, and held against a run before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from fedgrpo.federation.rehearsal import prompt_check
from fedgrpo.federation.rehearsal.proposal import TRIAL_S, OwnFigures, propose, work_seconds
from fedgrpo.ground.errors import DataError, PolicyError, all_at_once
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import Settings
from fedgrpo.site import CURES, Policy, Refusal, Site, broken_limits, check_spending
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.declared import broken_declarations, declared_in

AROUND_BYTES = 10**9
"""Of a node's processes besides the model's, with room."""


def write_proposal(file: Path, settings: Settings, prompts: str) -> None:
    """Write a policy that allows exactly these settings, with figures of these prompts.

    Parameters
    ----------
    file:
        To write.
    settings:
        What was agreed.
    prompts:
        File or folder.

    Raises
    ------
    DataError, ModelError, RewardError
        What keeps the site from taking part, with a cure.
    """
    anything = Policy(prompts_declared=10**9, longest_prompt_tokens=10**9)
    found = prompt_check.find(prompts, settings, anything)
    _refuse(prompt_check.problems(found, anything))
    with tempfile.TemporaryDirectory(prefix="fedgrpo-") as scratch:
        trial = Path(scratch) / "policy.toml"
        own = OwnFigures(found.units, found.longest, 0.0)
        trial.write_text(propose(settings, own, answer_s=TRIAL_S), "utf-8")
        order_s = prompt_check.order_seconds(trial, prompts, settings)
    own = OwnFigures(found.units, found.longest, work_seconds(order_s))
    replace_file(file, propose(settings, own).encode(), mode=0o600)


def stale(file: Path, settings: Settings) -> bool:
    """Whether a policy that was proposed before would refuse these settings, or cannot be read."""
    try:
        policy = Policy.from_toml(file)
    except PolicyError:
        return True
    return bool([*broken_limits(policy, settings), *broken_declarations(policy, settings)])


def accept(file: Path, settings: Settings, prompts: str, state: Path) -> None:
    """Hold a policy against a run and the prompts, and let the node answer with them.

    Parameters
    ----------
    file:
        The policy.
    settings:
        Of the run.
    prompts:
        File or folder.
    state:
        The node's folder, which gets the stamp.

    Raises
    ------
    PolicyError, DataError, FaultsError
        Everything that would keep the node from answering.
    """
    site = Site.open(file)
    policy, counted = site.policy, site.spending.read().counted
    found = prompt_check.find(prompts, settings, policy)
    _refuse(prompt_check.problems(found, policy))
    broken = (*broken_limits(policy, settings), *broken_declarations(policy, settings))
    all_at_once([partial(_refuse_run, code, problem, file) for code, problem in broken])
    check_spending(policy, [*counted, *[round_entry(settings)] * settings.rounds])
    prompt_check.leave_stamp(prompts, found, state)


def most_memory(file: Path, settings: Settings) -> int:
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
    adapter = resident(settings, any_weights=declared.any_weights)
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
