"""Synthetic runs: what a federation would write, without one."""

from dataclasses import replace

from fedgrpo.report import Guarantee, RewardSummary, RobustSummary, RoundRow, Summary
from fedgrpo.settings import METRICS

START = RoundRow(
    round=0,
    applied=False,
    reason="",
    metrics={},
    clipping_norm=1.0,
    update_norm=None,
    finished=0,
    dropped=0,
    buckets=0,
    epsilon=0.0,
    seconds={"evaluate": 2.0},
    sampled=0.16,
    greedy=0.29,
    kl_base=0.0,
    members=None,
    held_out_by={},
)


def round_row(number: int, **changes: object) -> RoundRow:
    """A healthy round of 4 + 1 seconds; every second one is evaluated."""
    evaluated = number % 2 == 0
    healthy = {"reward": 0.2 + 0.05 * number, "zero_signal": 0.4, "truncated": 0.05, "kl": 0.0042}
    told = healthy | {name: changes.pop(name) for name in METRICS if name in changes}
    row = replace(
        START,
        round=number,
        applied=True,
        metrics={name: value for name, value in told.items() if value is not None},
        clipping_norm=0.75,
        update_norm=0.3,
        finished=11,
        dropped=1,
        buckets=3,
        epsilon=1.25 * number,
        seconds={"train": 4.0, "share": 0.3, "mask": 0.3, "unmask": 0.3, "aggregate": 0.1},
        sampled=0.16 + 0.05 * number if evaluated else None,
        greedy=0.29 + 0.05 * number if evaluated else None,
        kl_base=0.02 * number if evaluated else None,
        members=None,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def run(rounds: int) -> list[RoundRow]:
    return [START, *(round_row(number) for number in range(1, rounds + 1))]


SUMMARY = Summary(
    reward=RewardSummary(start=0.16, end=0.56, greedy_start=0.29, greedy_end=0.68),
    rounds=24,
    wall_s=171.3,
    overhead_share=0.083,
    privacy=[Guarantee(unit="prompt", adversary="the server", epsilon=5.39, delta=1e-5)],
    robust=RobustSummary(
        rule="trimmed_mean",
        trim=1,
        buckets=4,
        words="trimmed mean of 4 group means, each coordinate without its lowest and highest",
    ),
    dropped=23,
    skipped_rounds=1,
    adapter="adapter",
    settings="3f9a1c77b0de" * 5,
    version="0.1.0",
)
