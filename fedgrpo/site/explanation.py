"""One page, in plain words, on what leaves a machine under a policy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from fedgrpo.privacy.accounting.neighbours import Neighbours
from fedgrpo.settings import METRICS
from fedgrpo.settings.protocols import PROTOCOLS
from fedgrpo.site.account.costs import UNITS, spent_epsilon, spent_on_neighbours
from fedgrpo.site.account.spending import Entry
from fedgrpo.site.limits import ANY, Policy, UnitLimits, allowed

WIDTH = 88
CURATED = (
    " Prompts take part only as a file that was curated by written rules, with its manifest beside "
    "it."
)

_HIDDEN = {
    "prompt": "any one of your prompts, with all its copies and every answer that the model gave "
    "(where a run says which column tells persons apart: all prompts of any one person)",
    "client": "your organisation's whole part in the training",
}
_REMOVED = {
    "prompt": "an empty prompt in its place",
    "client": "a contribution of nothing",
}
_NOISERS = {p.noiser.name: p.noiser for p in PROTOCOLS.values() if p.noiser}
"""Who adds one noise for all that is not the server."""
_NOISE = {
    "client": "this machine itself, before anything leaves it",
    "server": "the server, after it has added the sums up; it sees sums without noise",
    ANY: "whomever the server names",
} | {name: noiser.words for name, noiser in _NOISERS.items()}
_JOINT = (*_NOISERS, "server")
"""Who adds one noise for all."""


def explain(policy: Policy, entries: Sequence[Entry]) -> str:
    """Write the page.

    Parameters
    ----------
    policy:
        What the site allows.
    entries:
        What it has released so far.

    Returns
    -------
    str
        Plain text, wrapped.
    """
    paragraphs = [
        "WHAT LEAVES THIS MACHINE",
        *_stays(),
        *_leaves(policy),
        *_guarantee(policy),
        *_spent(policy, entries),
        *_who_decides(policy),
        *_not_promised(),
    ]
    return "\n\n".join(_wrapped(text) for text in paragraphs) + "\n"


def _stays() -> Iterator[str]:
    yield "1. What never leaves"
    yield (
        "Your prompts, the reference answers beside them, and what the model writes in reply stay "
        "on this machine. They are not sent to the server, not to other participants, and not "
        "written into messages about errors."
    )


def _leaves(policy: Policy) -> Iterator[str]:
    yield "2. What leaves"
    yield (
        "In each round of training the server sends the current changes to the model here. This "
        "machine lets the model answer some of your prompts, scores the answers, and works out a "
        "list of numbers by which the model should change: the update. That update leaves, in the "
        f"form that follows. {_clipped(policy)}"
    )
    for name, protocol in PROTOCOLS.items():
        if allowed(name, policy.protocols):
            yield from protocol.page(policy)
    yield _metrics(policy)
    yield (
        "Besides: temporary keys, a name that this machine has in this run only, a "
        "seal by which it can prove later what its update was and which tells nothing by itself, "
        "and, if it refuses, a one-word reason from a fixed list, which is decided before any "
        f"prompt is read. {_public(policy)}"
    )
    yield _timing(policy)


def _public(policy: Policy) -> str:
    """What is declared, and so as good as published."""
    declared = []
    if policy.prompts_declared:
        units = f"different values of {policy.unit_column!r}" if policy.unit_column else "texts"
        declared.append(f"that there are at most {policy.prompts_declared} {units} here")
    if policy.longest_prompt_tokens:
        declared.append(
            f"that the longest prompt used has at most {policy.longest_prompt_tokens} tokens "
            "(a longer one is left out, unseen)"
        )
    if not declared:
        return "Nothing about your prompts has been declared public."
    return f"Declared public, and told by such reasons: {' and '.join(declared)}."


def _timing(policy: Policy) -> str:
    if not policy.answer_after_s:
        return (
            "This policy names no time for answers, so runs that hide a prompt or the organisation "
            "are refused."
        )
    return (
        f"Once a round is paid for (below), an answer leaves {policy.answer_after_s:g} seconds "
        "after the server asked, never sooner or later, and always in the same form: a prompt that "
        "cannot be used adds nothing to it, and if all fails it is made of random noise alone. So "
        "neither time nor failure tells anything. What went wrong is in this machine's own log."
    )


def _clipped(policy: Policy) -> str:
    size = f"{policy.largest_clipping_norm:g}"
    if policy.prompt and not policy.client:
        return f"What each prompt adds to it is first cut down to a largest size ({size} at most)."
    if policy.client and not policy.prompt:
        return f"It is first cut down to a largest size ({size} at most)."
    return f"It, or what each prompt adds to it, is first cut down to a largest size ({size})."


def _metrics(policy: Policy) -> str:
    if not policy.metrics:
        return "No figures about the training itself leave."
    said = "; ".join(map(_said, policy.metrics))
    without = (
        "They may also leave in runs where only the sum hides them."
        if policy.metrics_without_noise
        else "They leave only with random noise on them that the server has no part in."
    )
    return (
        "These averages about the training may leave as a part of the update, and no others: "
        f"{said}. {without}"
    )


def _said(name: str) -> str:
    return METRICS[name].words if name in METRICS else f"what {name!r} measures"


def _guarantee(policy: Policy) -> Iterator[str]:
    yield "3. What could be learned from it"
    units = [(unit, limits) for unit in UNITS if (limits := policy.limits(unit))]
    if not units and not policy.without_privacy:
        yield "This policy allows no kind of run, so nothing leaves."
        return
    for unit, limits in units:
        yield _unit_words(unit, limits, policy.delta)
    if units:
        yield (
            "The noise is random and is added by "
            + _listed([_NOISE.get(place, f"{place!r}") for place in policy.noise_by])
            + _trusted(policy)
        )
    if policy.without_privacy:
        yield (
            "This policy ALSO allows runs without random noise. For those, no limit on what could "
            "be learned is stated: all that hides your update is being one among others."
        )


def _unit_words(unit: str, limits: UnitLimits, delta: float) -> str:
    epsilon = limits.largest_epsilon
    words = (
        f"Protected is {_HIDDEN[unit]}. What is limited is how well anybody who sees everything "
        "that is released, knows everything else and is as clever as can be, could tell it from "
        f"{_REMOVED[unit]}. The measure of this is called epsilon: 0 would mean not at all, and "
        f"smaller is better. This site's limit is {epsilon:g}, over all runs together. In plain "
        "terms: "
        "somebody who thought it an even chance beforehand can become at most "
        f"{_certainty(epsilon)} sure (at a limit of 1 it would be {_certainty(1)}, at 3 "
        f"{_certainty(3)}), but for a probability of {delta:g}, called delta, that this fails. It "
        "is the worst case; known attacks fall well short of it."
    )
    if limits.least_noise:
        words += (
            f" Besides, every release must carry random noise of at least {limits.least_noise:g} "
            "times the most that it could change the result."
        )
    return words


def _certainty(epsilon: float) -> str:
    """Largest posterior from an even prior, e^eps / (1 + e^eps), rounded up."""
    sure = 1 / (1 + math.exp(-epsilon))
    return f"{math.ceil(1e4 * sure) / 100:g} %"


def _trusted(policy: Policy) -> str:
    trusted = [noiser.trust for name, noiser in _NOISERS.items() if allowed(name, policy.noise_by)]
    return ". " + (" ".join(trusted) or "No other participant is relied upon for it.")


def _spent(policy: Policy, entries: Sequence[Entry]) -> Iterator[str]:
    yield "4. What has been spent so far"
    if not entries:
        yield f"Nothing: no release has been made. At most {policy.rounds} will be."
        return
    yield (
        f"{len(entries)} of at most {policy.rounds} releases have been made or begun, the last on "
        f"{entries[-1].at or 'an unknown date'}."
    )
    for unit in UNITS:
        if limits := policy.limits(unit):
            spent = spent_epsilon(entries, unit, policy.delta)
            yield (
                f"For {_HIDDEN[unit]}: epsilon {spent:.2f} of {limits.largest_epsilon:g}. The "
                "release that would pass the limit is refused."
            )
    if policy.prompt and any(entry.noise_multiplier > 0 for entry in entries):
        yield _beside(policy, entries)
    if bare := sum(entry.noise_multiplier == 0 for entry in entries):
        yield f"{bare} releases were made without noise and are in none of these figures."
    if policy.client and any(entry.unit == "prompt" for entry in entries):
        yield (
            "Releases that hide single prompts do not hide the organisation as a whole, and are "
            "not in the figure for it."
        )


def _beside(policy: Policy, entries: Sequence[Entry]) -> str:
    """What is not one prompt against an empty one, in figures of the account as it stands."""
    own = spent_on_neighbours(entries, policy.delta, shared=False)
    said = (
        f"Against another prompt in its place, instead of an empty one, it is {own.replaced:.2f}; "
        "so too for one row more of a text that is here already. If "
        f"{_numbers(own.copies)} participants hold the same prompt and released as much, then for "
        "all these copies together "
    )
    ways = []
    if allowed("client", policy.noise_by):
        ways.append(f"{_figures(own)} where each of them adds its own noise")
    if any(allowed(by, policy.noise_by) for by in _JOINT):
        one = spent_on_neighbours(entries, policy.delta, shared=True)
        ways.append(f"{_figures(one)} where one noise covers them all")
    return said + ", or ".join(ways) + "."


def _numbers(items: Iterable[object]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} or {last}"


def _figures(beside: Neighbours) -> str:
    return _numbers(
        f"{epsilon:.1f}" if math.isfinite(epsilon) else "no limit"
        for epsilon in beside.copies.values()
    )


def _who_decides(policy: Policy) -> Iterator[str]:
    yield "5. Who decides"
    shown = {name: protocol.shows for name, protocol in PROTOCOLS.items()}
    protocols = tuple(shown.get(name, name) for name in policy.protocols)
    trains = f"Programs that may take part in training: {_names(policy.code)}. "
    yield (
        "This file does. The software installed here holds every request of the server against it "
        "before any prompt is read, and refuses what does not fit. The account of what was spent "
        f"is kept on this machine in {policy.spent!r}; the server can neither change nor reset it."
        f"{CURATED if policy.curated else ''}"
    )
    yield (
        f"Models that may be used here: {_names(policy.models)}. Programs that may score answers "
        f"here: {_names(policy.rewards)}{_as_read(policy)}. {trains if policy.code else ''}What "
        f"the server may be shown: {_names(protocols)}. Requests are answered "
        f"{f'between {policy.hours} (local time)' if policy.hours else 'at any time'}."
    )


def _as_read(policy: Policy) -> str:
    if not policy.reward_hashes:
        return ""
    return f" ({_names(tuple(policy.reward_hashes))} only while the file is the one that was read)"


def _not_promised() -> Iterator[str]:
    yield "6. What is not promised"
    yield (
        "The limits hold for the software as installed. They do not cover programs that the server "
        "brings along and that somebody lets run here, a machine that dies and does not answer, "
        "somebody with access to this machine, or facts that many of your prompts have in common: "
        "those are what the training learns. The models and programs named above were approved by "
        "whoever wrote this file. Whoever deletes the account begins a new one. A prompt that "
        "other participants hold too is less protected, by what each copy adds."
    )


def _names(names: tuple[str, ...]) -> str:
    if ANY in names:
        return "whatever the server names"
    return ", ".join(names) or "none"


def _listed(parts: list[str]) -> str:
    return " or by ".join(parts) or "nobody"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
