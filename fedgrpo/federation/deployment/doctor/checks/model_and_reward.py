"""The base model and the reward, as they were tried in a process of their own."""

from __future__ import annotations

from fedgrpo.federation.deployment.doctor.checks.unlooked import unlooked
from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble, waits
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.ground.signs import MAX_ZERO_SIGNAL
from fedgrpo.site.checked import proposed
from fedgrpo.site.declared import FINISH_S
from fedgrpo.site.limits import Policy
from fedgrpo.site.look import Fault, Look, SeenModel, SeenReward, SeenRound

SLOW_S = 5.0
"""Of a reward, for one prompt's completions."""


@check(12, "model", opens=True)
def model(here: Surroundings) -> Findings:
    """That it is on this machine, whole, as safetensors, and brings no code."""
    yield from unlooked(here)
    if isinstance(look := here.looked, Look):
        match look.model:
            case SeenModel() as seen:
                yield fine(f"loaded on {seen.device}, fingerprint {seen.fingerprint[:16]}")
            case Fault() as fault:
                yield said("model-unusable", fault.error)
            case None:
                yield waits("check 14 comes first")


@check(13, "reward", private=True, opens=True)
def reward(here: Surroundings) -> Findings:
    """That it can be loaded, and gives a number for made-up completions of ten prompts."""
    yield from unlooked(here)
    if isinstance(look := here.looked, Look):
        match look.reward:
            case SeenReward() as seen:
                yield from _judged(seen)
            case Fault() as fault:
                yield said("reward-broken", fault.error)
            case None:
                yield waits("checks 9 and 12 come first")


def _judged(seen: SeenReward) -> Findings:
    if seen.unread:
        yield trouble("reward-unread", names=", ".join(map(repr, seen.unread)))
    for name, seconds in seen.seconds.items():
        if seconds > SLOW_S:
            yield trouble("reward-slow", name=repr(name), seconds=f"{seconds:.1f}")
    if seen.seconds:
        each = ", ".join(f"{name} {s:.2g} s" for name, s in seen.seconds.items())
        yield fine(f"numbers for {seen.prompts} prompts; for one prompt: {each}")


@check(21, "rehearsal", private=True, opens=True)
def rehearsal(here: Surroundings) -> Findings:
    """Reward, groups without signal and seconds of a rehearsed batch."""
    if not here.rehearse:
        yield fine("not asked for: --rehearse")
        return
    yield from unlooked(here)
    if isinstance(look := here.looked, Look):
        match look.round:
            case SeenRound() as seen:
                yield from _rehearsed(here, seen)
            case Fault() as fault:
                yield said("rehearsal-failed", fault.error)
            case None:
                yield waits("checks 9, 12, 13 and 14 come first")


def _rehearsed(here: Surroundings, seen: SeenRound) -> Findings:
    share, reward = f"{100 * seen.zero_signal:.0f} %", f"{seen.reward:.2f}"
    if seen.zero_signal >= MAX_ZERO_SIGNAL:
        yield trouble("no-signal", share=share, reward=reward)
    after = Policy.from_toml(here.policy).answer_after_s if here.policy else 0.0
    if after and seen.order_s + FINISH_S > after:
        needed = proposed(int(seen.order_s + FINISH_S) + 1)
        yield trouble(
            "round-long", seconds=f"{seen.order_s:.0f}", after=f"{after:g}", proposed=f"{needed}.0"
        )
    yield fine(f"reward {reward}, {share} of the groups without signal, {seen.round_s:.1f} s")
