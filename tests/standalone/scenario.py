"""A run of seconds: eight steps on the shipped base, measured every three."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

SCENARIO = """
rounds = 8
[data]
prompts_per_client = 24
[grpo]
prompts_per_step = 3
group_size = 4
max_completion_length = 8
passes = 2
[evaluation]
prompts = 10
every = 3
[privacy]
unit = "none"
"""
TIMES = {"seconds", "tokens_per_second"}
"""What differs from run to run, whatever is computed."""


def write(folder: Path, text: str = SCENARIO) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file without their times; a rate of 0 still says that a batch was used again."""
    return [
        {k: v for k, v in row.items() if k not in TIMES} | {"fresh": bool(row.get(RATE, 1))}
        for row in map(json.loads, path.read_text().splitlines())
    ]


RATE = "tokens_per_second"


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a saved adapter."""
    return load_file(folder / "adapter_model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """Rows, adapters and summaries of two runs are equal to the bit, times and memory apart."""
    for name in ("steps", "evaluations", "completions"):
        assert rows(one / f"{name}.jsonl") == rows(other / f"{name}.jsonl")
    for name in ("adapter", "adapter-best"):
        left, right = vectors(one / name), vectors(other / name)
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[key], right[key]) for key in left)
    ours, theirs = [json.loads((run / "training.json").read_text()) for run in (one, other)]
    for name in {*TIMES, "peak_memory_bytes"}:
        del ours[name], theirs[name]
    assert ours == theirs
