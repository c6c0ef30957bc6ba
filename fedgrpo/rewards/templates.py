"""What a judge is asked."""

from __future__ import annotations

import re
from collections.abc import Collection

from fedgrpo.data.prompts import Chat
from fedgrpo.errors import RewardError
from fedgrpo.rewards.verifiers import completion_text

PRINCIPLE = """\
Task:
{prompt}

Response:
{completion}

Principle: {principle}
Does the response follow the principle? Answer yes or no.
Answer:"""

FACT = """\
Known fact: {fact}

Task:
{prompt}

Response:
{completion}

Is the response supported by the known fact, without contradicting it? Answer yes or no.
Answer:"""

REASONING = """\
Task:
{prompt}

Response:
{completion}

How sound is the reasoning of the response, from 1 (wrong or missing) to {top} (every step follows)?
Score:"""

_FIELD = re.compile(r"\{(\w+)\}")


def check_template(template: str, fields: Collection[str]) -> str:
    """Return a template whose ``{fields}`` are all known.

    Raises
    ------
    RewardError
        If it has another field, or lacks ``{completion}``.
    """
    used = set(_FIELD.findall(template))
    if wrong := sorted(used - set(fields)):
        raise RewardError(
            f"a judge's template has the field {{{wrong[0]}}}",
            cure=f"use {', '.join(sorted(fields))}",
        )
    if "completion" not in used:
        raise RewardError("a judge's template lacks {completion}", cure="show what is judged")
    return template


def render(template: str, **fields: str) -> str:
    """Fill a template in one pass, so that braces inside a text stay what they are."""
    return _FIELD.sub(lambda match: fields[match[1]], template)


def prompt_text(prompt: str | Chat) -> str:
    """Return a prompt as a judge reads it; messages begin with their role."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def shown(template: str, prompt: str | Chat, completion: str | Chat, **fields: str) -> str:
    """Fill a template with a prompt, its completion and what is asked about them."""
    texts = {"prompt": prompt_text(prompt), "completion": completion_text(completion)}
    return render(template, **texts, **fields)
