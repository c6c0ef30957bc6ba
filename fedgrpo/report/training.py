"""What training without a federation leaves behind, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import lines
from fedgrpo.ground.records import Record, from_json

STEPS, EVALUATIONS, COMPLETIONS = "steps.jsonl", "evaluations.jsonl", "completions.jsonl"
WARNINGS, OUTCOME, PICTURE = "warnings.jsonl", "training.json", "training.png"
ADAPTER, BEST_ADAPTER, STATE = "adapter", "adapter-best", "state.pt"

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Record):
    """One line of ``evaluations.jsonl``: held-out rewards of the adapter after some steps."""

    step: int
    """Optimiser steps taken; 0 is the state before training."""
    sampled: float
    """Mean weighted reward of completions sampled at the training temperature."""
    greedy: float
    """Mean weighted reward of the most likely completions."""
    sampled_rewards: dict[str, float | None]
    """Mean by function, sampled. None where it applies to no completion."""
    greedy_rewards: dict[str, float | None]
    """Mean by function, greedy."""
    kl: float
    """KL divergence (nats a token) from the start."""
    seconds: float
    """Wall time of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class SampleRow(Record):
    """One line of ``completions.jsonl``: a held-out prompt with a sampled completion. Private."""

    step: int
    prompt: str | list[dict[str, str]]
    completion: str
    reward: float
    """Weighted."""
    rewards: dict[str, float | None]
    """By function."""
    extra: dict[str, str] = field(default_factory=dict)
    """What reward functions logged beside it (``log_extra``), as text."""


@dataclass(frozen=True, kw_only=True)
class WarningRow(Record):
    """One line of ``warnings.jsonl``: what kept the trainer from learning, and the cure."""

    step: int
    message: str


@dataclass(frozen=True)
class Rewards(Record):
    """Held-out rewards at three moments."""

    start: float
    end: float
    best: float


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(Record):
    """``training.json``: the outcome of finished training."""

    steps: int
    sampled: Rewards
    """Held-out reward of sampled completions."""
    greedy: Rewards
    """Held-out reward of the most likely completions; ``best`` is that of the best adapter by the
    sampled reward."""
    best_step: int
    """Steps that the adapter in ``adapter-best`` has taken."""
    completions: int
    """Completions sampled for training."""
    tokens: int
    """Tokens sampled for training."""
    tokens_per_second: float
    """Tokens over the wall time of all steps, updates included."""
    seconds: float
    """Wall time of steps and evaluations, those before a resume included."""
    peak_memory_bytes: int
    """Largest resident memory of the process that finished."""
    peak_gpu_bytes: int | None
    """Largest memory that torch held on the GPU. None without one."""
    privacy: str
    """What protects the prompts: nothing."""
    settings: str
    """Fingerprint of the settings, SHA-256 in hex."""
    version: str
    """Version of fedgrpo that ran."""


@dataclass(frozen=True)
class Training:
    """A run directory as it was read.

    Attributes
    ----------
    steps:
        One mapping a step, as :class:`fedgrpo.grpo.StepMetrics` writes it, NaN as None.
    evaluations, warnings:
        Oldest first.
    summary:
        None before the end.
    """

    steps: list[Row]
    evaluations: list[EvaluationRow]
    warnings: list[WarningRow]
    summary: TrainingSummary | None


def best_evaluation(rows: Sequence[EvaluationRow]) -> EvaluationRow:
    """Return the one with the largest sampled reward, the earliest of equals.

    The sampled reward, not the greedy one, since it is what training raises and it moves less by
    chance; held-out, not in training, since a policy can learn its prompts by heart.
    """
    return max(rows, key=lambda row: row.sampled)


def read_training(run_dir: Path) -> Training:
    """Read a run directory, also while it is being written.

    Raises
    ------
    RunError
        If nothing was evaluated there yet, or a whole line is no valid row.
    """
    evaluations = [from_json(EvaluationRow, line) for line in lines(run_dir / EVALUATIONS)]
    if not evaluations:
        raise RunError(f"{run_dir} holds no training that was evaluated", cure="check the path")
    outcome = run_dir / OUTCOME
    return Training(
        [_step(run_dir / STEPS, line) for line in lines(run_dir / STEPS)],
        evaluations,
        [from_json(WarningRow, line) for line in lines(run_dir / WARNINGS)],
        from_json(TrainingSummary, outcome.read_text("utf-8")) if outcome.exists() else None,
    )


def _step(path: Path, line: str) -> Row:
    try:
        row = json.loads(line)
        int(row["step"])
    except (ValueError, TypeError, KeyError):
        raise RunError(f"{path} has a line that is no step", cure="read a run unchanged") from None
    return dict(row)
