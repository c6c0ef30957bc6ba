"""Holding a run's settings against a site's policy. Pure: nothing is read, nothing is spent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from fedgrpo.ground.errors import PolicyError
from fedgrpo.privacy.accounting.guarantees import round_cost
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.site.limits import ANY, Policy, allowed, named_code
from fedgrpo.site.refusals import CURES, Refusal


def check_round(policy: Policy, settings: Settings, clipping_norm: float, now: datetime) -> None:
    """Refuse a round that breaks the policy, whatever has been spent so far.

    Adversary: a server that chooses settings, clipping norm and time. It learns the refusal's code.

    Parameters
    ----------
    settings:
        The run's, from the server.
    clipping_norm:
        C of this round.
    now:
        Local time.

    Raises
    ------
    PolicyError
        Of the first limit that is broken, with the limit and the value in words for the site's log.
    """
    for code, problem in _broken(policy, settings, clipping_norm, now):
        raise PolicyError(problem, code=code, cure=CURES[code])


def broken_limits(
    policy: Policy, settings: Settings, now: datetime | None = None
) -> tuple[tuple[Refusal, str], ...]:
    """Every limit that a run of these settings would break, with what is wrong.

    Parameters
    ----------
    now:
        Local time; None leaves the hours out.
    """
    norm = settings.privacy.clipping_norm
    found = _broken(policy, settings, norm, now or datetime.now())
    return tuple(fault for fault in found if now or fault[0] is not Refusal.HOURS)


def _broken(
    policy: Policy, settings: Settings, clipping_norm: float, now: datetime
) -> Iterator[tuple[Refusal, str]]:
    yield from _broken_privacy(policy, settings)
    if clipping_norm > policy.largest_clipping_norm:
        yield (
            Refusal.CLIPPING_NORM,
            f"clipping norm {clipping_norm:g} is above {policy.largest_clipping_norm:g}",
        )
    yield from _broken_protocol(policy, settings)
    yield from _broken_code(policy, settings)
    yield from _broken_metrics(policy, settings)
    if not policy.open_at(now):
        yield Refusal.HOURS, f"{now:%H:%M} is outside of the hours {policy.hours}"


def _broken_privacy(policy: Policy, settings: Settings) -> Iterator[tuple[Refusal, str]]:
    privacy, cost = settings.privacy, round_cost(settings)
    if cost is None:
        if not policy.without_privacy:
            yield Refusal.UNIT, "privacy.unit = 'none' is not allowed"
        return
    limits = policy.limits(privacy.unit)
    if limits is None:
        yield Refusal.UNIT, f"privacy.unit = {privacy.unit!r} is not allowed"
    elif cost.noise_multiplier < limits.least_noise:
        yield (
            Refusal.NOISE,
            f"noise multiplier {cost.noise_multiplier:g} is below {limits.least_noise:g}",
        )
    if not allowed(place := protocol_of(settings).noise_place(settings), policy.noise_by):
        yield Refusal.NOISE_PLACE, f"noise by the {place} is not allowed"


def _broken_protocol(policy: Policy, settings: Settings) -> Iterator[tuple[Refusal, str]]:
    """Who is shown what on the way to the robust rule."""
    protocol = protocol_of(settings)
    if not allowed(protocol.name, policy.protocols):
        yield Refusal.PROTOCOL, f"aggregation.protocol = {protocol.name!r} is not allowed"
    for code, problem in protocol.broken(settings, policy):
        yield Refusal(code), problem


def _broken_code(policy: Policy, settings: Settings) -> Iterator[tuple[Refusal, str]]:
    """Models, rewards and methods: what would be loaded and run here.

    A bare name stands for the default branch alone: anybody can open a reference of a public
    repository, and put weights and a chat template of their own there.
    """
    model = settings.model
    pinned = f"{model.name}@{model.revision}"
    named = model.name in policy.models and not model.revision
    if not (named or pinned in policy.models or ANY in policy.models):
        yield Refusal.MODEL, f"model {pinned.rstrip('@')!r} is not allowed"
    for name in settings.reward.functions:
        if not allowed(name, policy.rewards):
            yield Refusal.REWARD, f"reward function {name!r} is not allowed"
    for key, name in named_code(settings):
        if not allowed(name, policy.code):
            yield Refusal.CODE, f"{key} = {name!r} is not allowed"


def _broken_metrics(policy: Policy, settings: Settings) -> Iterator[tuple[Refusal, str]]:
    privacy = settings.privacy
    if forbidden := [name for name in privacy.metrics if name not in policy.metrics]:
        yield Refusal.METRICS, f"metrics {', '.join(forbidden)} may not leave"
    # The server sees sums before its own noise; members of a committee see shares, then noise.
    noised = privacy.unit != "none" and protocol_of(settings).noise_place(settings) != "server"
    if privacy.metrics and not noised and not policy.metrics_without_noise:
        yield Refusal.METRICS, "metrics may not leave without noise that the server has no part in"
