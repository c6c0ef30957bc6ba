"""A policy that allows what a site was invited to, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedgrpo.ground.errors import PolicyError
from fedgrpo.privacy.adaptive import RANGE
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.committee.members import keys_of
from fedgrpo.site.account.costs import round_entry, spent_epsilon
from fedgrpo.site.account.spending import Entry
from fedgrpo.site.checked import proposed
from fedgrpo.site.declared import FINISH_S
from fedgrpo.site.limits import named_code

SPARE = 1.1
"""Rounds and epsilon are those of the whole run, and a tenth more."""
BESIDES_S, LEAST_S = 40.0, 60.0
"""An answer waits for so long beside the work: a process starts, loads its model, and other work
may be going on."""
WORK_SHARE = 5 / 8
"""Of the time until an answer; an eighth is for encoding, and a quarter for judging."""
UNIT_S = 0.32
"""For each unit, so that encoding never runs out of time: see docs/threat-model.md."""
TRIAL_S = 60.0
"""Until an answer, where a machine is tried."""


@dataclass(frozen=True)
class OwnFigures:
    """What a site's own people say of its prompts in public.

    Attributes
    ----------
    units:
        At most so many.
    longest_tokens:
        Of the longest prompt that takes part.
    work_s:
        Most seconds of an order on this machine, without the shares for encoding and judging.
    reward_hashes:
        SHA-256 (hex) of files of rewards, by the names of these without options.
    counted:
        What its account has already.
    """

    units: int
    longest_tokens: int
    work_s: float
    reward_hashes: Mapping[str, str] = field(default_factory=dict)
    counted: tuple[Entry, ...] = ()


def propose(settings: Settings, own: OwnFigures, *, answer_s: float = 0.0) -> str:
    """Write the policy file.

    Parameters
    ----------
    settings:
        What was agreed.
    own:
        Of the site's prompts; they are rounded.
    answer_s:
        Seconds until an answer; 0 works them out.
    """
    lines = [
        "# What this machine lets the federation do: exactly what it was invited to.",
        meant_for(settings),
        "# 'fedgrpo policy explain' tells it in plain words; clients/policy.toml has every key.",
        "",
        "# What may be known of the prompts, rounded.",
        *_public(settings, own, answer_s or answer_after_s(own, settings)),
        "",
        "# What was agreed.",
        *(f"{key} = {_toml(value)}" for key, value in _agreed(settings, own.counted).items()),
        "",
        *_limits(settings, own.counted),
        *_hashes(own),
    ]
    return "\n".join(lines) + "\n"


def meant_for(settings: Settings) -> str:
    """A line of a proposed policy by which it is known to be for these settings."""
    return f"# Proposed for the settings {settings.fingerprint()[:16]}."


def work_seconds(order_s: float) -> float:
    """What of an order that was tried with :data:`TRIAL_S` is work, in seconds."""
    return max(0.0, order_s - (1 - WORK_SHARE) * TRIAL_S)


def answer_after_s(own: OwnFigures, settings: Settings) -> float:
    """Seconds after which an answer leaves: room for four times the work and for what stands around
    it, if the run waits as long.
    """
    room = 4 * (own.work_s + FINISH_S) / WORK_SHARE + BESIDES_S
    wanted = proposed(math.ceil(max(LEAST_S, UNIT_S * own.units, room)))
    least = proposed(math.ceil((own.work_s + FINISH_S) / WORK_SHARE))
    within = math.floor(settings.federation.round_timeout_s * 0.9)
    return float(wanted if wanted <= within else max(least, within))


def _public(settings: Settings, own: OwnFigures, answer_s: float) -> Iterator[str]:
    if settings.privacy.unit == "prompt":
        # An upper bound may be above the truth; the run asks for so many at least.
        units = max(proposed(own.units), settings.data.min_prompts)
        yield f"prompts_declared = {units}"
        yield f"unit_column = {_toml(settings.data.unit)}"
    longest = min(proposed(own.longest_tokens), settings.grpo.max_prompt_length)
    yield f"longest_prompt_tokens = {longest}"
    yield f"answer_after_s = {answer_s}"


def _agreed(settings: Settings, counted: Sequence[Entry]) -> dict[str, object]:
    privacy, protocol = settings.privacy, protocol_of(settings)
    model = settings.model
    noised = privacy.unit != "none" and protocol.noise_place(settings) != "server"
    return {
        "models": [f"{model.name}@{model.revision}" if model.revision else model.name],
        "rewards": list(settings.reward.functions),
        "code": [name for _, name in named_code(settings)],
        "protocols": [protocol.name],
        "noise_by": [protocol.noise_place(settings)],
        "committee": list(keys_of(settings)),
        "least_bucket": max(3, settings.secure.bucket_size),
        "largest_clipping_norm": privacy.clipping_norm * (RANGE if privacy.adaptive else 1.0),
        "metrics": list(privacy.metrics),
        "metrics_without_noise": bool(privacy.metrics) and not noised,
        "without_privacy": privacy.unit == "none",
        "delta": privacy.delta,
        "rounds": len(counted) + math.ceil(settings.rounds * SPARE),
    }


def _limits(settings: Settings, counted: Sequence[Entry]) -> Iterator[str]:
    unit, one = settings.privacy.unit, round_entry(settings)
    if unit == "none":
        return
    yield f"[{unit}]"
    yield f"least_noise = {one.noise_multiplier!r}"
    yield f"largest_epsilon = {float(f'{run_epsilon(settings, counted) * SPARE:.3g}')!r}"


def _hashes(own: OwnFigures) -> Iterator[str]:
    if own.reward_hashes:
        yield from ("", "[reward_hashes]    # SHA-256 of the files, as they were read.")
    yield from (f"{_toml(name)} = {_toml(found)}" for name, found in own.reward_hashes.items())


def run_epsilon(settings: Settings, counted: Sequence[Entry] = ()) -> float:
    """Epsilon of all rounds of a run, in a site's account that has so much already; raises
    PolicyError if there is no end to it.
    """
    entries = [*counted, *[round_entry(settings)] * settings.rounds]
    found = spent_epsilon(entries, settings.privacy.unit, settings.privacy.delta)
    if not math.isfinite(found):
        raise PolicyError(
            "the agreed run has no finite epsilon", code="epsilon", cure="agree on more noise"
        )
    return found


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
