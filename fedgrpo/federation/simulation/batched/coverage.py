"""Which settings the batched engine computes, and why it leaves the others to ordinary clients."""

from __future__ import annotations

from fedgrpo.settings import Settings


def left_out(settings: Settings) -> str:
    """Why ordinary clients must compute a run one after another; empty if a batch can."""
    if settings.privacy.unit == "prompt":
        if settings.data.unit_rows > 1:
            return f"data.unit_rows = {settings.data.unit_rows} sums rows before they are clipped"
    elif settings.grpo.guidance != "none":
        return f"grpo.guidance = {settings.grpo.guidance!r} samples more than plain completions"
    return ""


def engine_words(settings: Settings) -> str:
    """One line on who computes a run in this process."""
    reason = left_out(settings)
    if reason:
        return f"Clients compute one after another: {reason}"
    return f"All {settings.simulation.clients} clients compute in one batch"
