"""Which settings the batched engine computes, and why it leaves the others to ordinary clients."""

from __future__ import annotations

from fedgrpo.attacks import attacks
from fedgrpo.attacks.poison import poison_of
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Settings


def left_out(settings: Settings) -> str:
    """Why ordinary clients must compute a run one after another; empty if a batch can."""
    if settings.privacy.unit == "prompt":
        if settings.data.unit_rows > 1:
            return f"data.unit_rows = {settings.data.unit_rows} sums rows before they are clipped"
    elif settings.grpo.guidance != "none":
        return f"grpo.guidance = {settings.grpo.guidance!r} samples more than plain completions"
    return ""


def check_attack(settings: Settings, *, in_process: bool) -> None:
    """Refuse an attack that only the batched engine can carry out, where it does not run.

    Raises
    ------
    SettingsError
        If attackers would need what others send, or would train on honest data instead.
    """
    simulation = settings.simulation
    reason = left_out(settings) if in_process else "clients compute in processes of their own"
    if not simulation.byzantine or not reason:
        return
    attacks.check_attack(simulation.attack)
    if poison_of(simulation.attack) is not None:
        raise SettingsError(
            f"simulation.attack = {simulation.attack!r} poisons what a client learns from, and "
            f"only clients that compute in one batch can do so: {reason}",
            cure="run it in one process (--in-process), or take an attack on the vector",
        )


def engine_words(settings: Settings) -> str:
    """One line on who computes a run in this process."""
    reason = left_out(settings)
    if reason:
        return f"Clients compute one after another: {reason}"
    return f"All {settings.simulation.clients} clients compute in one batch"
