"""What a site's releases cost together, for each unit, and whether one more is affordable."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from fedgrpo.ground.errors import PolicyError
from fedgrpo.privacy.accounting.composition import Mechanism, compose
from fedgrpo.privacy.accounting.guarantees import round_cost
from fedgrpo.privacy.accounting.neighbours import Neighbours, neighbours_of
from fedgrpo.privacy.accounting.overflow import with_overflow
from fedgrpo.settings import Settings
from fedgrpo.site.account.spending import Entry
from fedgrpo.site.limits import Policy
from fedgrpo.site.refusals import CURES, Refusal

UNITS = ("prompt", "client")


def spent_epsilon(entries: Sequence[Entry], unit: str, delta: float) -> float:
    """Return epsilon of these releases together for one unit.

    Whose presence is hidden and from whom: a unit of prompts (replaced by an empty one, or added or
    removed, see :mod:`fedgrpo.data.units`) or the site's contributions (all zeroed out), from the
    strongest adversary of each run, see :func:`fedgrpo.privacy.accounting.guarantees.guarantees`,
    who has seen every run.

    A release that hides the site's contribution hides each prompt too: one prompt takes a clipped
    contribution to another one, which is at most twice as far as to zero, so it counts with half
    its noise multiplier. The reverse does not hold: a run that hides prompts bounds nothing about
    the whole site, and is left out of the site's figure. Releases without noise have no epsilon
    and are left out of both.

    For a prompt, the limit of time of each release that samples prompts is in it, see
    :func:`fedgrpo.privacy.accounting.overflow.with_overflow`. A torn line may have been such a
    release.

    Parameters
    ----------
    unit:
        ``prompt`` or ``client``.
    delta:
        In (0, 1).
    """
    found = [mechanism for entry in entries if (mechanism := _seen_as(entry, unit))]
    return with_overflow(lambda left: compose(found, left), _limited(entries, unit), delta)


def spent_on_neighbours(entries: Sequence[Entry], delta: float, *, shared: bool) -> Neighbours:
    """Return what these releases cost for a replaced prompt, and copies at several clients.

    Parameters
    ----------
    entries:
        One client's releases; the others are taken to have made the same.
    delta:
        In (0, 1).
    shared:
        Whether one noise covers all copies, see
        :func:`fedgrpo.privacy.accounting.neighbours.epsilon_of_copies`.
    """
    found = Counter(one for entry in entries if (one := _seen_as(entry, "prompt")))
    return neighbours_of(found, delta, shared=shared, limited=_limited(entries, "prompt"))


def check_spending(policy: Policy, entries: Sequence[Entry]) -> None:
    """Refuse releases that are too many or cost too much.

    Raises
    ------
    PolicyError
        With what would be spent and the limit, for the site's log.
    """
    if len(entries) > policy.rounds:
        raise _refused(
            Refusal.ROUNDS, f"{len(entries)} releases would be beyond rounds = {policy.rounds}"
        )
    for unit in UNITS:
        limits = policy.limits(unit)
        if limits is None:
            continue
        epsilon = spent_epsilon(entries, unit, policy.delta)
        if epsilon > limits.largest_epsilon:
            raise _refused(
                Refusal.EPSILON,
                f"the {unit} account would come to epsilon = {epsilon:.3f} at delta = "
                f"{policy.delta:g}, above {limits.largest_epsilon:g}",
            )


def rounds_left(policy: Policy, entries: Sequence[Entry], settings: Settings) -> int:
    """Rounds of a run of these settings that the site's account still pays for.

    Parameters
    ----------
    policy, entries:
        What the site allows, and has released.
    settings:
        The run's; at most its ``rounds`` are counted.
    """
    one = round_entry(settings)

    def too_many(rounds: int) -> bool:
        try:
            check_spending(policy, [*entries, *[one] * rounds])
        except PolicyError:
            return True
        return False

    return bisect_left(range(1, settings.rounds + 1), True, key=too_many)


def round_entry(
    settings: Settings, *, at: str = "", run: int = 0, round: int = 0, plan: str = ""
) -> Entry:
    """Write down what one round of these settings costs."""
    cost = round_cost(settings)
    return Entry(
        at=at,
        run=run,
        round=round,
        plan=plan,
        unit=settings.privacy.unit,
        noise_multiplier=float(cost.noise_multiplier) if cost else 0.0,
        sample_rate=float(cost.sample_rate) if cost else 1.0,
    )


def _limited(entries: Sequence[Entry], unit: str) -> int:
    """Number of noised releases that sample within a limit of time."""
    if unit != "prompt":
        return 0
    return sum(e.noise_multiplier > 0 and (e.unit == unit or bool(e.torn)) for e in entries)


def _seen_as(entry: Entry, unit: str) -> Mechanism | None:
    noise, rate = entry.noise_multiplier, entry.sample_rate
    if noise <= 0:
        return None
    if entry.torn:
        return Mechanism(noise, rate if unit == "prompt" else 1.0)
    if entry.unit == unit:
        return Mechanism(noise, rate)
    if (entry.unit, unit) == ("client", "prompt"):
        return Mechanism(noise / 2)
    return None


def _refused(code: Refusal, problem: str) -> PolicyError:
    return PolicyError(problem, code=code, cure=CURES[code])
