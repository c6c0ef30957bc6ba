"""Rules that look at one row alone."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

from fedgrpo.data.curation.rules import PERSONAL, Rules
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.chats import Prompt

ROW_RULES = ("length", "language", "marker", "personal", "required", "licence")
"""In the order in which their reasons stand."""


def text_of(prompt: Prompt) -> str:
    """What people wrote in a prompt: its text, or its messages' contents."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt)


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """Share of a text's letters that belong to these writing systems; 1 of a text without any.

    A letter's Unicode name begins with its system's. This tells Greek from Latin, and no German
    from English: those are told apart by models that are sure of themselves on any text, and wrong
    on short ones, which most prompts here are.
    """
    letters = [_script(character) for character in text if character.isalpha()]
    return sum(each in scripts for each in letters) / len(letters) if letters else 1.0


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def faults(row: PromptRow, rules: Rules) -> Iterator[tuple[str, str]]:
    """Yield the rules that a row breaks, each with a word on how; no value of the row is in it."""
    text = text_of(row.prompt)
    if len(text) < rules.shortest:
        yield "length", f"shorter than {rules.shortest} characters"
    if 0 < rules.longest < len(text):
        yield "length", f"longer than {rules.longest} characters"
    if rules.scripts and script_share(text, rules.scripts) < rules.script_share:
        yield "language", f"less than {rules.script_share:.0%} in {', '.join(rules.scripts)}"
    for marker in rules.markers:
        if marker in text:
            yield "marker", f"has {marker!r}"
    for name, found in _patterns(rules):
        if found(text):
            yield "personal", f"looks like {name}"
    for column in rules.required:
        if not _is_filled(row.columns.get(column)):
            yield "required", f"no {column}"
    licence = row.columns.get("licence")
    if rules.licences and str(licence) not in rules.licences:
        yield "licence", "another licence"


def _patterns(rules: Rules) -> Iterator[tuple[str, Callable[[str], object]]]:
    named = {name: PERSONAL[name] for name in rules.personal} | rules.patterns
    for name, pattern in named.items():
        yield name, re.compile(pattern).search


def _is_filled(value: object) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return False
    return value is not None and bool(str(value).strip())
