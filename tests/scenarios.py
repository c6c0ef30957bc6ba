"""A scenario as a user would write one, which takes seconds."""

from __future__ import annotations

from pathlib import Path

SMALL = """
rounds = {rounds}
[simulation]
clients = 9
[data]
prompts_per_client = 60
min_prompts = 60
[grpo]
prompts_per_step = 2
group_size = 2
[privacy]
unit = "none"
[evaluation]
prompts = 8
"""


def write_small(folder: Path, rounds: int = 1) -> Path:
    """Write ``small.toml`` into a folder: nine clients, without privacy."""
    path = folder / "small.toml"
    path.write_text(SMALL.format(rounds=rounds))
    return path
