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
VARIED = """
def varied(completion_ids):
    return [float(sum(ids)) for ids in completion_ids]
"""
"""A reward that tells completions apart, whatever an untrained model says."""


def write(folder: Path, text: str = SCENARIO) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file without their times; a rate of 0 still says that a batch was used again."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for row in found:
        row.pop("seconds", None)
        if metrics := row.get("metrics"):
            metrics["tokens_per_second"] = bool(metrics["tokens_per_second"])
    return found


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a saved adapter."""
    return load_file(folder / "adapter_model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """Rows, adapters and summaries of two runs are equal to the bit, times and memory apart."""
    for name in ("metrics", "completions"):
        assert rows(one / f"{name}.jsonl") == rows(other / f"{name}.jsonl")
    for name in ("adapter", "adapter-best"):
        left, right = vectors(one / name), vectors(other / name)
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[key], right[key]) for key in left)
    assert summary(one) == summary(other)


def summary(run: Path) -> dict[str, Any]:
    """A run's summary without times and memory."""
    tree: dict[str, Any] = json.loads((run / "summary.json").read_text())
    for name in ("tokens_per_second", "peak_memory_bytes"):
        del tree["training"][name]
    return {**tree, "wall_s": 0.0}
