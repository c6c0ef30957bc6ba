"""Prompt-level privacy rests on prompts that cannot reach each other's gradients."""

from __future__ import annotations

from fedgrpo.errors import SettingsError
from fedgrpo.grpo.advantages import ADVANTAGES
from fedgrpo.grpo.losses import LOSSES


def require_isolation(advantage: str, loss: str, credit: str = "group") -> None:
    """Refuse algorithms in which one prompt's completions weigh on another prompt's gradient.

    A batch-wide loss would break the guarantee: removing a prompt would move more than that
    prompt's clipped share. A batch-wide advantage sees each prompt alone there, and would silently
    be another algorithm than its name says.

    Raises
    ------
    SettingsError
        If a name is unknown, or registered as batch-wide. Names what could be taken instead.
    """
    if credit != "group":
        raise _refusal("grpo.credit", credit, "group")
    wide_advantage, wide_loss = ADVANTAGES[advantage].batch_wide, LOSSES[loss].batch_wide
    if wide_advantage:
        local = ", ".join(name for name, rule in ADVANTAGES.items() if not rule.batch_wide)
        raise _refusal("grpo.advantage", advantage, local)
    if wide_loss:
        local = ", ".join(name for name, method in LOSSES.items() if not method.batch_wide)
        raise _refusal("grpo.loss", loss, local)


def _refusal(key: str, name: str, local: str) -> SettingsError:
    return SettingsError(
        f"{key} = {name!r} compares prompts with each other, which privacy.unit = 'prompt' rules "
        "out",
        cure=f"set {key} to one of {local}; or privacy.unit to 'client' or 'none'",
    )
