"""What every part of the settings is made of: frozen, strict, readable from Flower's scalars."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from fedgrpo.ground.parts import split_names
from fedgrpo.settings.bounds import ITEMS, TEXT, check_bounds


def split(value: object) -> object:
    """Let a tuple be written as "a, b" too, the only form that Flower's run configuration can
    carry. Commas within the parentheses of an option do not count.
    """
    if isinstance(value, str):
        return split_names(value)
    return tuple(value) if isinstance(value, list) else value


def _split_numbers(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value),)
    parts = split(value)
    if isinstance(value, str) and isinstance(parts, tuple):
        return tuple(float(part) for part in parts)
    return parts


def _split_counts(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    parts = split(value)
    if isinstance(value, str) and isinstance(parts, tuple):
        return tuple(int(part) for part in parts)
    return parts


Names = Annotated[tuple[str, ...], BeforeValidator(split), Field(max_length=ITEMS)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_split_numbers), Field(max_length=ITEMS)]
Counts = Annotated[tuple[int, ...], BeforeValidator(_split_counts), Field(max_length=ITEMS)]


class Section(BaseModel):
    """A frozen part of the tree that refuses unknown keys, wrong types, numbers that are not
    finite, settings that are not within :data:`fedgrpo.settings.bounds.BOUNDS`, and texts and lists
    beyond all measure.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        str_max_length=TEXT,
    )

    @classmethod
    def prefix(cls) -> str:
        """Return what its keys begin with: ``privacy.`` for PrivacySettings."""
        return f"{cls.__name__.removesuffix('Settings').lower()}."

    @field_validator("*", mode="after")
    @classmethod
    def _within_bounds(cls, value: Any, info: ValidationInfo) -> Any:
        check_bounds(f"{cls.prefix()}{info.field_name}", value)
        return value
