"""The names under which trackers show a row's figures: those under which TRL's GRPOTrainer (1.16)
logs the same figure. What has none there is under ``federation/``, ``phases/`` and ``fedgrpo/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAINING = {
    "reward": "train/reward",
    "zero_signal": "train/frac_reward_zero_std",
    "truncated": "train/completions/clipped_ratio",
    "length": "train/completions/mean_length",
    "entropy": "train/entropy",
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "clip_low": "train/clip_ratio/low_mean",
    "clip_high": "train/clip_ratio/high_mean",
}
"""TRL's names for metrics that mean the same there."""
HELD_OUT = {"sampled": "eval/reward", "greedy": "eval/reward_greedy", "kl_base": "eval/kl"}
FEDERATED = ("clipping_norm", "update_norm", "epsilon", "finished", "dropped", "buckets", "members")


def figures(row: Any) -> dict[str, float]:
    """The figures of a row under the names that trackers show.

    Parameters
    ----------
    row:
        :class:`fedgrpo.report.records.RoundRow`.
    """
    # In a federation, KL is from the round's adapter and not from the start as TRL's.
    kl = {"kl": "train/kl"} if row.alone else {}
    found = {_metric(name, TRAINING | kl): value for name, value in row.metrics.items()}
    found |= {name: getattr(row, key) for key, name in HELD_OUT.items()}
    for group, ways in {**row.held_out_rewards}.items():
        found[f"eval/rewards/{_short(group)}/mean"] = ways.get("sampled")
    for group, ways in row.held_out_by.items():
        found |= {f"eval/{group}/{way}": value for way, value in ways.items()}
    found |= {f"phases/{phase}": seconds for phase, seconds in row.seconds.items()}
    if row.alone:
        found["train/step_time"] = row.seconds.get("step")
    else:
        found |= {f"federation/{name}": getattr(row, name) for name in FEDERATED}
        found |= {f"federation/bytes_{way}": count for way, count in row.bytes.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _metric(name: str, known: Mapping[str, str]) -> str:
    kind, _, function = name.partition("/")
    if kind == "rewards":
        return f"train/rewards/{_short(function)}/mean"
    if kind == "metrics":
        return f"fedgrpo/{name}"
    return known.get(name) or f"fedgrpo/{kind}{'/' if function else ''}{_short(function)}"


def _short(function: str) -> str:
    return function.rpartition(":")[2]
