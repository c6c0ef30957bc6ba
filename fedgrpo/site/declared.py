"""What a site says of itself in public, before any prompt is read, and what follows for a run.

A server learns from a refusal, so refusals follow from these figures and never from the prompts.
They are chosen by the site's own people, who hold the prompts against them with ``fedgrpo policy
check``; they are bounds and not counts, or a server could find the exact number by asking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.limits import Policy
from fedgrpo.site.refusals import Refusal
from fedgrpo.site.site import is_simulated, site_of

FINISH_S = 2.0
"""Seconds kept free before an answer leaves, to put a release on disk and write the reply."""


@dataclass(frozen=True)
class Declared:
    """A site's public figures."""

    units: int
    """Upper bound on its units; 0 on a simulated node, which has as many as it has."""
    longest_prompt_tokens: int
    """Longest prompt that takes part."""
    stateless_rewards: tuple[str, ...]
    """Reward functions that may run in the node's own process."""
    answer_after_s: float
    """Seconds from an order to train to its answer; 0 answers as soon as it can."""
    any_weights: bool
    """Whether model weights may be in a format that can hold code."""

    @property
    def work_s(self) -> float:
        """Seconds in which an order may be worked at; infinity where its answer waits for that."""
        return self.answer_after_s - FINISH_S if self.answer_after_s else math.inf


def declared_by(node_config: Mapping[str, Scalar], settings: Settings) -> Declared:
    """Read what a node declares, from its site's policy; a simulated one is its own site. Raises
    PolicyError if there is a policy and it cannot be read.
    """
    if is_simulated(node_config):
        longest = settings.grpo.max_prompt_length
        return Declared(0, longest, (), 0.0, any_weights=False)
    site = site_of(node_config)
    return declared_in(site.policy if site else Policy(), settings)


def declared_in(policy: Policy, settings: Settings) -> Declared:
    """What a policy declares for a run."""
    return Declared(
        units=policy.prompts_declared,
        longest_prompt_tokens=policy.longest_prompt_tokens or settings.grpo.max_prompt_length,
        stateless_rewards=policy.stateless_rewards,
        answer_after_s=policy.answer_after_s,
        any_weights=policy.any_weights,
    )


def broken_declarations(policy: Policy, settings: Settings) -> Iterator[tuple[Refusal, str]]:
    """Say where a run does not fit what a site declares, with what is wrong for the site's log.

    A run without a privacy unit promises nothing that the figures would have to hold up.
    """
    if settings.privacy.unit == "none":
        return
    if settings.privacy.unit == "prompt":
        yield from _broken_column(policy.unit_column, settings.data.unit)
        yield from _broken_count(policy.prompts_declared, settings.data.min_prompts)
    yield from _broken_length(policy.longest_prompt_tokens, settings.grpo.max_prompt_length)
    yield from _broken_time(policy.answer_after_s, settings.federation.round_timeout_s)


def _broken_column(column: str, wanted: str) -> Iterator[tuple[Refusal, str]]:
    if wanted != column:
        yield Refusal.UNIT, f"data.unit = {wanted!r} is not this site's unit_column = {column!r}"


def _broken_count(units: int, least: int) -> Iterator[tuple[Refusal, str]]:
    if units == 0:
        yield Refusal.DECLARED, "the policy has no prompts_declared"
    elif units < least:
        yield Refusal.DECLARED, f"prompts_declared = {units} is below data.min_prompts = {least}"


def _broken_length(tokens: int, most: int) -> Iterator[tuple[Refusal, str]]:
    if tokens == 0:
        yield Refusal.LONGEST_PROMPT, "the policy has no longest_prompt_tokens"
    elif tokens > most:
        yield (
            Refusal.LONGEST_PROMPT,
            f"longest_prompt_tokens = {tokens} is above grpo.max_prompt_length = {most}",
        )


def _broken_time(after_s: float, timeout_s: float) -> Iterator[tuple[Refusal, str]]:
    if after_s == 0:
        yield Refusal.ANSWER_TIME, "the policy has no answer_after_s"
    elif after_s >= timeout_s:
        yield (
            Refusal.ANSWER_TIME,
            f"answer_after_s = {after_s:g} is not below federation.round_timeout_s = {timeout_s:g}",
        )
