"""Metrics of a user's own, as a file that settings name."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.rewards import declare_metric


@declare_metric(low=0.0, high=4.0)
def length(completions: Sequence[str], *, unit: float = 1.0) -> list[float]:
    return [len(text) / unit for text in completions]


def share_of_a(completions: Sequence[str]) -> list[float]:
    """Declares nothing: held to 0 to 1."""
    return [text.count("a") / len(text) for text in completions]


@declare_metric(low=-1.0, high=1.0)
def unruly(completions: Sequence[str], prompts: Sequence[str]) -> list[float | None]:
    """Does what the prompt says."""
    wild = {"huge": 1e300, "low": -5.0, "nothing": None, "nan": float("nan")}
    if prompts[0] == "raise":
        raise ValueError("patient Zyx")
    return [wild.get(prompts[0], 0.5)] * len(completions)


class Counted:
    """Keeps what it saw, or would."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.seen = most, 0

    def __call__(self, completions: Sequence[str], answer: Sequence[str]) -> list[float]:
        self.seen += 1
        return [
            float(self.seen == 1 and text == a) for text, a in zip(completions, answer, strict=True)
        ]


class Bound:
    def bind(self, adapter: object) -> None:
        """Wants the trainer's model."""

    def __call__(self, completions: Sequence[str]) -> list[float]:
        return [0.0 for _ in completions]
