"""Published methods by name: advantage, loss and the paper's own numbers in one place.

``grpo.preset = "dapo"`` fills those settings that the user has not set. What depends on model and
machine (learning rate, group size, lengths) is no part of a preset.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from fedgrpo.ground.parts import Registry


@dataclass(frozen=True)
class Preset:
    """A method as its paper has it.

    Attributes
    ----------
    title:
        The method's name in print.
    arxiv:
        Number of the paper.
    advantage, loss, clip_low, clip_high, kl, kl_weight, max_resamples, overlong_share, credit,
    guidance, entropy_weight:
        As in :class:`~fedgrpo.settings.GRPOSettings`. A clip of 0 is for losses without that bound.
    """

    title: str
    arxiv: str
    advantage: str
    loss: str
    clip_low: float = 0.0
    clip_high: float = 0.0
    kl: str = "k3"
    kl_weight: float = 0.0
    max_resamples: int = 0
    overlong_share: float = 0.0
    credit: str = "group"
    guidance: str = "none"
    entropy_weight: float = 0.0

    def settings(self) -> dict[str, str | float | int]:
        """The values for the ``grpo`` section of the settings."""
        return {k: v for k, v in asdict(self).items() if k not in {"title", "arxiv"}}


PRESETS = Registry("grpo.preset", data=Preset)
register_preset = PRESETS.register

# Group standard score, PPO clip, KL penalty, mean over sequences of the mean over tokens.
register_preset("grpo")(Preset("GRPO", "2402.03300", "grpo", "grpo", 0.2, 0.2, kl_weight=0.04))

# GRPO without its two biases: no division by the spread, none by the completion's length.
register_preset("dr_grpo")(Preset("Dr. GRPO", "2503.20783", "dr_grpo", "dr_grpo", 0.2, 0.2))

# Clip-higher, token mean, dynamic sampling (bounded), soft overlong punishment over the last fifth
# of the length limit (4096 of 20480 tokens in the paper).
register_preset("dapo")(
    Preset("DAPO", "2503.14476", "grpo", "dapo", 0.2, 0.28, max_resamples=3, overlong_share=0.2)
)

# Group mean, batch spread, token mean: two tricks of all those that the paper compared.
register_preset("lite_ppo")(Preset("Lite PPO", "2508.08221", "lite_ppo", "dapo", 0.2, 0.2))

# One ratio a completion, clipped very closely.
register_preset("gspo")(Preset("GSPO", "2507.18071", "grpo", "gspo", 3e-4, 4e-4))

# Geometric mean of token ratios, each clipped to (e^-0.4, e^0.4).
register_preset("gmpo")(
    Preset("GMPO", "2507.20673", "grpo", "gmpo", 1 - math.exp(-0.4), math.exp(0.4) - 1)
)

# Importance weights capped from above and held constant (MiniMax-M1), cap of 5.
register_preset("cispo")(Preset("CISPO", "2506.13585", "grpo", "cispo", 1.0, 4.0))

# A smooth gate in place of the clip.
register_preset("sapo")(Preset("SAPO", "2511.20347", "grpo", "sapo"))

# REINFORCE with the mean of the others as baseline, and a KL penalty of TRL's default weight. The
# paper has the penalty inside the reward; in the loss its gradient is the same in expectation.
register_preset("rloo")(Preset("RLOO", "2402.14740", "rloo", "reinforce", kl_weight=0.05))

# Rewards whitened over the batch, PPO clip, token mean, and a KL penalty of OpenRLHF's default
# weight (inside the reward there, in the loss here).
register_preset("reinforce_pp")(
    Preset("REINFORCE++", "2501.03262", "reinforce_pp", "dapo", 0.2, 0.2, kl_weight=0.01)
)

# A value head and GAE in place of the group, PPO clip, token mean, and a small KL penalty (in the
# reward in the first uses on language models, in the loss here).
register_preset("ppo")(
    Preset("PPO", "1707.06347", "outcome", "dapo", 0.2, 0.2, kl_weight=0.01, credit="gae")
)

# Values of steps from fresh rollouts in place of PPO's critic.
register_preset("vine_ppo")(
    Preset("VinePPO", "2410.01679", "outcome", "dapo", 0.2, 0.2, kl_weight=1e-4, credit="vine")
)

# The best of the refinements after a critique joins its group and is learned under the plain
# prompt, shaped by p / (p + 0.1); no clip, no division by spread or length.
register_preset("critique_grpo")(
    Preset(
        "Critique-GRPO",
        "2506.03106",
        "dr_grpo",
        "critique_grpo",
        guidance="critique",
        entropy_weight=1e-3,
    )
)

# Sampled from the product of the plain prompt and one that shows the answer, the latter's power
# falling to nothing; learned under the plain prompt with importance weights up to 5, which is
# CISPO's loss.
register_preset("contexts")(
    Preset("Product of contexts", "", "grpo", "cispo", 1.0, 4.0, guidance="contexts")
)
