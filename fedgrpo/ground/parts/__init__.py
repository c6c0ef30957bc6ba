"""Parts that users extend: their names, where they are loaded from, and registries of them."""

from fedgrpo.ground.parts.names import (
    PartName,
    absolute_part,
    brings_code,
    join_names,
    part_name,
    split_names,
)
from fedgrpo.ground.parts.registry import Registry

__all__ = [
    "PartName",
    "Registry",
    "absolute_part",
    "brings_code",
    "join_names",
    "part_name",
    "split_names",
]
