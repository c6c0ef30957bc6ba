"""What is wrong with a file that people have written, in words."""

from __future__ import annotations

from pydantic import ValidationError


def faults(error: ValidationError) -> str:
    """Name each key and what is wrong with it."""
    found = (f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
    return "; ".join(found)
