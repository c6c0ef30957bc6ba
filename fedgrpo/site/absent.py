"""A deployed node without a policy: what it refuses, and which line of a policy would allow it.

Adversary: a server whose settings name code, models and protocols. Nobody at the site has said that
it may, so it may not. A simulated node and ``fedgrpo train`` are their own site.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from fedgrpo.ground.parts import brings_code
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.site.limits import named_code
from fedgrpo.site.refusals import Refusal

SHIPPED = "tiny"
"""The model that the package ships."""

_NO_UNIT = "without_privacy = true"
_PUBLIC = (
    (Refusal.DECLARED, "prompts_declared", "1000"),
    (Refusal.LONGEST_PROMPT, "longest_prompt_tokens", "512"),
    (Refusal.ANSWER_TIME, "answer_after_s", "600.0"),
)


def broken_without_policy(settings: Settings) -> Iterator[tuple[Refusal, str]]:
    """Say why a node without a policy refuses a run: always, and first by what is gravest.

    Without a policy there is no account of what was spent, nor any figure that is declared public.
    """
    for code, what, line in _forbidden(settings):
        yield code, f"{what} is not allowed on a node without a policy; {_allowing(line)}"
    for code, name, example in _PUBLIC:
        yield code, f"nobody has declared {name}; {_allowing(f'{name} = {example}')}"


def _forbidden(settings: Settings) -> Iterator[tuple[Refusal, str, str]]:
    if foreign := [name for name in settings.reward.functions if brings_code(name)]:
        named = f"reward function {', '.join(map(repr, foreign))}"
        yield Refusal.REWARD, named, f"rewards = {json.dumps(list(settings.reward.functions))}"
    if code := list(named_code(settings)):
        named = ", ".join(f"{key} = {name!r}" for key, name in code)
        yield Refusal.CODE, named, f"code = {json.dumps([name for _, name in code])}"
    if settings.privacy.own_metrics:
        named = f"privacy.metrics = {', '.join(map(repr, settings.privacy.own_metrics))}"
        yield Refusal.METRICS, named, f"metrics = {json.dumps(list(settings.privacy.metrics))}"
    if (model := settings.model.name) != SHIPPED:
        yield Refusal.MODEL, f"model {model!r}", f"models = {json.dumps([model])}"
    if settings.privacy.unit == "none":
        yield Refusal.UNIT, "privacy.unit = 'none'", _NO_UNIT
    if (protocol := protocol_of(settings)).trusted_server:
        yield (
            Refusal.PROTOCOL,
            f"aggregation.protocol = {protocol.name!r}",
            f"protocols = {json.dumps([protocol.name])}",
        )


def _allowing(line: str) -> str:
    return f"in a policy.toml beside the prompts this line would allow it: {line}"
