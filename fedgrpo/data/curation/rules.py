"""What a rules file may say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import toml_of
from fedgrpo.settings import Names, Section

PERSONAL = {
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "phone": r"(?<![\w.+])(?:\+\d{1,3}[ /.-]?)?(?:\(\d+\)|\d{2,5})(?:[ /.-]\d{2,5}){2,4}(?![\w.])",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card": r"\b(?:\d{4}[ -]?){3}\d{4}\b",
    "ip": r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b",
    "birthday": r"(?i)\b(?:born|dob|geb(?:oren)?|né)\b[^\d\n]{0,12}\d{1,4}[./-]\d{1,2}[./-]\d{1,4}",
}
"""Patterns of personal data, by the names that ``personal`` takes."""


def _check_patterns(patterns: dict[str, str]) -> dict[str, str]:
    for name, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{name} is no regular expression: {error}") from None
    return patterns


def _check_personal(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - PERSONAL.keys()):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(PERSONAL)}")
    return names


Patterns = Annotated[dict[str, str], AfterValidator(_check_patterns)]


class Rules(Section):
    """A rules file. What it does not name is not looked at."""

    person: str = ""
    """Column whose value says whose a row is: ``data.unit`` of the runs to come. Empty: the text of
    a prompt is the unit.
    """
    exact: bool = True
    """Whether of rows of one unit that are alike in all but the required columns the first stays
    alone.
    """
    near: float = Field(default=0.0, ge=0, le=1)
    """Jaccard similarity of two prompts' shingles from which they are near: of one person's, the
    first stays alone. 0 looks for none.
    """
    shingle: int = Field(default=5, ge=1, le=100)
    """Characters of a shingle, spaces and case aside."""
    shortest: int = Field(default=1, ge=0)
    """Least characters of a prompt."""
    longest: int = Field(default=0, ge=0)
    """Most characters of a prompt; 0 sets no limit."""
    scripts: Names = ()
    """Writing systems as Unicode names them, ``LATIN`` or ``HAN`` ``CJK``: a prompt's letters are
    in these. Empty takes any.
    """
    script_share: float = Field(default=0.9, ge=0, le=1)
    """Least share of a prompt's letters that must be."""
    markers: tuple[str, ...] = ()
    """Texts that no finished prompt has: ``{{``, ``<|im_start|>``, ``[INST]``, ``TODO``."""
    personal: Annotated[Names, AfterValidator(_check_personal)] = ()
    """Kinds of personal data that a prompt may not have, by :data:`PERSONAL`."""
    patterns: Patterns = Field(default_factory=dict)
    """Regular expressions of your own that a prompt may not match, by a name for each."""
    required: Names = ()
    """Columns that every row must have a value in: provenance and licence."""
    licences: Names = ()
    """Values that the column ``licence`` may have. Empty takes any."""
    samples: int = Field(default=0, ge=0, le=10_000)
    """Completions of each prompt by which the current policy's difficulty is told: of none correct,
    or all, a row goes. 0 does not ask.
    """
    keep_unsolved: float = Field(default=0.0, ge=0, le=1)
    """Share of the rows of which none was correct that stay all the same, by their hash: what is
    never solved today may be tomorrow.
    """

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a rules file; raises SettingsError with the key, its value and the cure."""
        try:
            tree = {k: tuple(v) if isinstance(v, list) else v for k, v in toml_of(path).items()}
            return cls.model_validate(tree)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            problem = f"{key} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"
        except OSError as error:
            problem = f"cannot be read ({type(error).__name__})"
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = f"not valid TOML: {error}"
        raise SettingsError(
            f"rules file {path}: {problem}", cure="mend it; docs/curation.md explains every key"
        )
