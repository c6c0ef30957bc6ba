"""Synthetic training alone: what ``fedgrpo train`` would write, without it."""

from pathlib import Path

from fedgrpo.report import RewardSummary, RoundRow, RunWriter, Summary
from fedgrpo.report.records import TrainingSummary

FUNCTIONS = ("exact_match", "/home/me/rewards.py:short")
SUMMARY = Summary(
    reward=RewardSummary(start=0.2, end=0.6, greedy_start=0.1, greedy_end=0.7),
    rounds=40,
    wall_s=12.5,
    overhead_share=0.0,
    privacy=[],
    robust=None,
    dropped=0,
    skipped_rounds=0,
    adapter="adapter",
    settings="3f9a1c77b0de" * 5,
    version="0.1.0",
    training=TrainingSummary(
        best_step=30,
        best=0.65,
        best_greedy=0.7,
        completions=1280,
        tokens=9000,
        tokens_per_second=700.0,
        peak_memory_bytes=300 * 2**20,
        peak_gpu_bytes=None,
    ),
)


def step(number: int, **changes: float) -> RoundRow:
    """A step as training alone writes it; every tenth one is evaluated."""
    sampled = 0.2 + 0.01 * number
    measured = number % 10 == 0
    metrics = {
        "reward": sampled,
        f"rewards/{FUNCTIONS[0]}": 0.01 * number,
        "entropy": 1.0 / max(number, 1),
        "kl": 0.01 * number,
        "length": 5.0,
        "tokens": 120.0,
        "truncated": 0.05,
        "zero_signal": 0.5,
        "tokens_per_second": 240.0,
    }
    return RoundRow(
        round=number,
        applied=number > 0,
        reason="",
        metrics=metrics | changes if number else {},
        clipping_norm=None,
        update_norm=None,
        finished=0,
        dropped=0,
        buckets=0,
        epsilon=None,
        seconds={"step": 0.5} | ({"evaluate": 1.0} if measured else {}),
        sampled=sampled if measured else None,
        greedy=sampled + 0.1 if measured else None,
        kl_base=0.02 * number if measured else None,
        members=None,
        held_out_rewards={FUNCTIONS[0]: {"sampled": sampled}} if measured else {},
        warnings=["Too hot. Cool it."] if number == 12 else [],
    )


def steps(count: int) -> list[RoundRow]:
    return [step(number) for number in range(count + 1)]


def write(folder: Path, count: int = 40, *, summary: bool = True) -> Path:
    writer = RunWriter(folder)
    writer.phase(0, count, "step")
    for row in steps(count):
        writer.row(row)
    if summary:
        writer.summary(SUMMARY)
    return folder
