"""Prompts inside other prompts: with a reference answer, or with a completion and its critique."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.rewards.judges.templates import render
from fedgrpo.settings import GRPOSettings

_FIELD = re.compile(r"\{(\w+)\}")


def check_guidance(
    settings: GRPOSettings, rows: Sequence[PromptRow], template: str, fields: Collection[str]
) -> None:
    """Refuse settings and rows that a guide cannot work with, before work starts.

    Parameters
    ----------
    settings, rows:
        What the guide is to work with.
    template:
        The setting of ``grpo`` with the guide's template.
    fields:
        What the template must have.

    Raises
    ------
    SettingsError
        If the template has other fields.
    DataError
        If a row lacks the reference answer. Names its number only.
    """
    check_fields(f"grpo.{template}", getattr(settings, template), fields)
    require_column(rows, settings.answer_column, f"grpo.guidance = {settings.guidance!r}")


def check_fields(key: str, template: str, fields: Collection[str]) -> str:
    """Return a template that has each of these ``{fields}`` and no other.

    Raises
    ------
    SettingsError
        Naming the setting ``key``, if it lacks one or has another.
    """
    used = set(_FIELD.findall(template))
    if used != set(fields):
        wrong = ", ".join(f"{{{name}}}" for name in sorted(used ^ set(fields)))
        wanted = ", ".join(f"{{{name}}}" for name in sorted(fields))
        raise SettingsError(
            f"{key} lacks, or should not have, {wrong}", cure=f"use each of {wanted}, and no other"
        )
    return template


def require_column(rows: Sequence[PromptRow], column: str, purpose: str) -> None:
    """Refuse rows without a value in a column, before work starts.

    Raises
    ------
    DataError
        Naming the number of the first such row, from 1, and the column, but no value.
    """
    for number, row in enumerate(rows, start=1):
        if row.columns.get(column) is None:
            raise DataError(
                f"prompt {number} has no {column!r}, which {purpose} needs",
                cure=f"give every row a column {column!r}, or name the column that has the answers",
            )


def fill_prompt(row: PromptRow, template: str, **fields: str) -> str | Chat:
    """Put a prompt into a template as ``{prompt}``, with further fields.

    Of chat messages the last one is put there; those before it (instructions, earlier turns) stay
    as they are.
    """
    prompt = row.for_model()
    if isinstance(prompt, str):
        return render(template, prompt=prompt, **fields)
    last = prompt[-1]
    return [*prompt[:-1], {**last, "content": render(template, prompt=last["content"], **fields)}]
