"""The reference of all settings, written from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fedgrpo.settings import Section, Settings
from fedgrpo.settings.bounds import BOUNDS, ITEMS, TEXT, shown

INTRODUCTION = f"""\
# Settings

Every setting with its type, default and meaning. This page is written by `fedgrpo settings`.

A scenario file has one TOML table a section (`[privacy]`), and settings without a section at its
top. `flwr run . -c` and `fedgrpo simulate --set` take them as `section.name=value`. A list is a
TOML list in a scenario, and `"a, b"` in Flower's run configuration, which carries no lists. An
empty text for what `grpo.preset` or the model can fill means "not set". Unknown keys, wrong types,
numbers outside the bounds that stand beside their type (all are finite, both ends are allowed),
texts of more than {TEXT} characters, lists of more than {ITEMS} items and impossible combinations
are refused before anything starts, by the site of each client too.

`start = "language_model"` at the top of a scenario fills what it does not set with values for
models of 0.1 to 8 B parameters, with prompt-level privacy and without; `fedgrpo/settings/starts.py`
has them. With privacy a server that is trusted to add the noise is among them (`privacy.noise =
"server"`, `aggregation.protocol = "plain"`), unless the scenario sets others. `start` is used up
when a command of fedgrpo reads the scenario: `flwr run -c` does not know it.
"""


def to_markdown() -> str:
    """Write the reference: one table a section, in the order of the settings."""
    sections = [(name, field) for name, field in Settings.model_fields.items() if _section(field)]
    top = [(name, field) for name, field in Settings.model_fields.items() if not _section(field)]
    parts = [INTRODUCTION, *_table("", dict(top))]
    for name, field in sections:
        section = _section(field)
        assert section is not None
        parts += [f"\n## {name}\n", f"{_line(section.__doc__)}\n"]
        parts += _table(f"{name}.", section.model_fields)
    return "\n".join(parts) + "\n"


def _section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _table(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        key, meaning = f"{prefix}{name}", _line(field.description).replace("|", "\\|")
        yield f"| `{key}` | {_type(field, key)} | {_default(field.default)} | {meaning} |"


def _line(text: str | None) -> str:
    """Put a docstring on one line, with Markdown's code marks."""
    return " ".join((text or "").split()).replace("``", "`")


def _type(field: FieldInfo, key: str) -> str:
    """Write a setting's type, and what a number may be."""
    bounds = f", {shown(key)}" if key in BOUNDS else ""
    return _kind(field) + bounds


def _kind(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if get_origin(item) is Literal:
            return f"list of {', '.join(f'`{choice}`' for choice in get_args(item))}"
        return f"list of {item.__name__}"
    return str(kind.__name__)


def _default(value: object) -> str:
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"
