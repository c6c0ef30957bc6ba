"""Prompt-level privacy rests on prompts that cannot reach each other's gradients."""

from __future__ import annotations

from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo.learning.advantages import ADVANTAGES
from fedgrpo.grpo.learning.losses import LOSSES
from fedgrpo.settings import GRPOSettings


def require_isolation(grpo: GRPOSettings) -> None:
    """Refuse algorithms in which one prompt's completions weigh on another prompt's gradient.

    A batch-wide loss would break the guarantee: removing a prompt would move more than that
    prompt's clipped share. A batch-wide advantage sees each prompt alone there, and would silently
    be another algorithm than its name says. A value head learns from all prompts. Guidance changes
    from step to step, and a round under prompt-level privacy is a single one.

    Raises
    ------
    SettingsError
        If a name is unknown, or one of these. Names what could be taken instead.
    """
    if ADVANTAGES[grpo.advantage].batch_wide:
        local = ", ".join(name for name, rule in ADVANTAGES.items() if not rule.batch_wide)
        raise _refusal("grpo.advantage", grpo.advantage, local)
    if LOSSES[grpo.loss].batch_wide:
        local = ", ".join(name for name, method in LOSSES.items() if not method.batch_wide)
        raise _refusal("grpo.loss", grpo.loss, local)
    if grpo.credit != "group":
        raise _refusal("grpo.credit", grpo.credit, "group")
    if grpo.engine != "own":
        raise _refusal("grpo.engine", grpo.engine, "own")
    if grpo.guidance != "none":
        raise _refusal("grpo.guidance", grpo.guidance, "none")


def _refusal(key: str, name: str, local: str) -> SettingsError:
    declared = "" if ":" not in name else ", or declares nothing about it"
    return SettingsError(
        f"{key} = {name!r} lets prompts or steps weigh on each other{declared}, which "
        "privacy.unit = 'prompt' rules out",
        cure=f"set {key} to one of {local}; or privacy.unit to 'client' or 'none'"
        + (declared and "; or, where it looks at no other prompt, declare batch_wide=False"),
    )
