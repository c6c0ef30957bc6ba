"""The site's prompts, as its own people see them, and what its policy says to the settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fedgrpo.federation.deployment.doctor.checks.unlooked import unlooked
from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble, waits
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.ground.errors import DataError, FedGRPOError, PolicyError, RunError
from fedgrpo.settings import Settings
from fedgrpo.site import CURES, Entry, Policy, Site, broken_limits, check_spending, rounds_left
from fedgrpo.site.account.costs import round_entry
from fedgrpo.site.checked import broken_files, check_unchanged, files_stamp, proposed
from fedgrpo.site.declared import broken_declarations
from fedgrpo.site.look import Fault, Look, SeenPrompts


@check(9, "prompts", private=True, opens=True)
def prompts(here: Surroundings) -> Findings:
    """Every row, with this model's tokenizer; at a start and every hour, that they are as they were
    when they were looked at.
    """
    if "prompts" not in here.config:
        own_app = here.site and here.site.own_app
        named = fine("the app of this site's own finds them") if own_app else None
        yield named or waits("no prompts are named: --prompts FILE")
        return
    try:
        files_stamp(str(here.config["prompts"]))
    except DataError as error:
        yield said("prompts-unreadable", error)
        return
    if here.site and (policy := _policy(here)):
        yield from _unchanged(here, policy)
    yield from _looked(here)


def _looked(here: Surroundings) -> Findings:
    match here.looked:
        case Look() as seen if isinstance(seen.prompts, SeenPrompts):
            yield from _seen(here, seen, seen.prompts)
        case Look() as seen if isinstance(seen.prompts, Fault):
            # What keeps the model from being loaded is told by another check.
            own, fault = seen.prompts.kind != "ModelError", seen.prompts.error
            yield said("prompts-unreadable", fault) if own else waits("check 12 comes first")
        case Look():
            yield waits("check 14 comes first")
        case FedGRPOError() as error:
            yield trouble("look-died", why=error.problem)
        case None:
            yield from unlooked(here)


def _unchanged(here: Surroundings, policy: Policy) -> Findings:
    try:
        check_unchanged(here.config, Settings(), policy)
    except (DataError, RunError) as error:
        yield said("prompts-unchecked", error)
    else:
        yield fine("as they were when they were checked")


def _seen(here: Surroundings, look: Look, seen: SeenPrompts) -> Findings:
    yield from (trouble("rows-unusable", rows=n, why=why) for why, n in seen.unusable.items())
    yield from (said("column-lacking", fault.error) for fault in look.columns)
    yield from _counted(here, seen.units)
    if seen.too_long:
        yield trouble("prompts-long", rows=seen.too_long, tokens=seen.limit)
    if seen.copies:
        yield trouble("prompts-copies", rows=seen.copies)
    yield fine(f"{seen.rows} rows, {seen.units} units, the longest has {seen.longest} tokens")


def _counted(here: Surroundings, units: int) -> Findings:
    policy, settings = _policy(here), here.settings
    if policy and units > policy.prompts_declared:
        declared = policy.prompts_declared
        yield trouble("units-undeclared", units=units, declared=declared, proposed=proposed(units))
    if settings and settings.privacy.unit == "prompt" and units < settings.data.min_prompts:
        yield trouble("units-few", units=units, least=settings.data.min_prompts)


def _policy(here: Surroundings) -> Policy | None:
    """The site's policy if it can be read; what is wrong with it is another check's."""
    try:
        return Policy.from_toml(here.policy) if here.policy else None
    except PolicyError:
        return None


@check(10, "policy")
def policy(here: Surroundings) -> Findings:
    """That it can be read, allows the settings, and has something left in its account."""
    if not here.policy:
        joined = here.site is not None
        yield trouble("policy-missing") if joined else fine("'fedgrpo join' proposes one")
        return
    try:
        site = Site.open(here.policy)
        entries = site.spending.read().counted
    except PolicyError as error:
        # An account that cannot be read is the next check's.
        unread = error.code == "policy-file"
        yield said("policy-unreadable", error) if unread else waits("check 11 comes first")
        return
    now = datetime.fromtimestamp(here.clock())
    if not site.policy.open_at(now):
        yield trouble("hours-closed", hours=site.policy.hours, now=f"{now:%H:%M}")
    if here.settings:
        yield from _agreed(here, site.policy, here.settings, entries)
    else:
        yield fine(f"can be read; {len(entries)} of {site.policy.rounds} releases are spent")


def _agreed(
    here: Surroundings, policy: Policy, settings: Settings, entries: Sequence[Entry]
) -> Findings:
    """Hold the policy and its account against the settings."""
    broken = [
        *broken_limits(policy, settings),
        *broken_declarations(policy, settings),
        *broken_files(policy, settings, here.config),
    ]
    for refusal, problem in broken:
        yield trouble("policy-forbids", refusal=refusal, problem=problem, theirs=CURES[refusal])
    left, rounds, why = rounds_left(policy, entries, settings), settings.rounds, ""
    try:
        check_spending(policy, [*entries, *[round_entry(settings)] * (left + 1)])
    except PolicyError as error:
        why = error.problem
    if left < rounds:
        code = "account-nearly" if left else "account-spent"
        yield trouble(code, left=left, rounds=rounds, why=why)
    elif not broken:
        yield fine(f"allows the settings, and its account pays for all {rounds} rounds")
