"""Something that a person should act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One of them.

    Attributes
    ----------
    code:
        Of docs/troubleshooting.md.
    line, cure:
        What it is, and what to do.
    time:
        Unix time, in seconds, at which it was seen; 0 where it is so now.
    """

    code: str
    line: str
    cure: str
    time: float = 0.0

    @property
    def words(self) -> str:
        """In one line."""
        return f"{self.line} [{self.code}]" + (f"; cure: {self.cure}" if self.cure else "")
