"""How large a row may be before anything is done with it.

Reading and encoding happen after a release is charged for, in time that all rows share. So a row
has a limit from public figures, and one above it costs itself alone: its bytes are skipped unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedgrpo.ground.errors import DataError

TOKEN_CHARACTERS = 64
"""Characters of a prompt for each token that it may have: more than any language needs, and less
than a tokenizer's longest runs of blanks.
"""
OTHER_BYTES = 2**18
"""Bytes of a row beside its prompt: references, facts, tests."""
DEEPEST = 32
"""Lists and tables within each other."""


@dataclass(frozen=True)
class RowLimit:
    """What one row may measure.

    Attributes
    ----------
    tokens:
        Of the longest prompt that takes part: a public figure.
    """

    tokens: int

    @property
    def prompt(self) -> int:
        """Characters of its prompt, roles included."""
        return TOKEN_CHARACTERS * self.tokens

    @property
    def row(self) -> int:
        """Bytes of its line, or characters of all that it holds."""
        return self.prompt + OTHER_BYTES

    def check(self, raw: Mapping[Any, Any]) -> None:
        """Refuse a row that is too large or nests too deep.

        Raises
        ------
        DataError
            That continues a sentence about the row, and quotes no value.
        """
        if size(raw.get("prompt")) > self.prompt:
            raise DataError(f"has a prompt of more than {self.prompt} characters")
        if size(raw) > self.row:
            raise DataError(f"holds more than {self.row} characters")


def size(value: object, deepest: int = DEEPEST) -> int:
    """Characters that a value holds; every other item counts as one.

    Raises
    ------
    DataError
        If it nests too deep, before Python's own stack ends.
    """
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, Mapping | list | tuple):
        return 1
    if deepest == 0:
        raise DataError(f"holds lists or tables more than {DEEPEST} deep")
    parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    return len(value) + sum(size(part, deepest - 1) for part in parts)
