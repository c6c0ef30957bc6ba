"""What a judge is asked."""

from __future__ import annotations

import re
from collections.abc import Collection

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.verifiable.verifiers import completion_text

# What changes least comes first: neighbouring questions share the forward pass of what they begin
# with.
PRINCIPLE = """\
Does the response follow this principle? {principle}

Task:
{prompt}

Response:
{completion}

Does it follow the principle, yes or no?
Answer:"""

FACT = """\
Is the response supported by a known fact, without contradicting it?

Task:
{prompt}

Response:
{completion}

Known fact: {fact}
Is the response supported by it, yes or no?
Answer:"""

REASONING = """\
How sound is the reasoning of the response, from 1 (wrong or missing) to {top} (every step follows)?

Task:
{prompt}

Response:
{completion}

Score from 1 to {top}:"""

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
