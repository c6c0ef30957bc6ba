"""How credit for a completion's reward is shared out among its tokens: the same for all of them
(the group-relative methods), by a value head (PPO), or by fresh rollouts (VinePPO).
"""

from fedgrpo.grpo.methods.credit import ppo, vine
from fedgrpo.grpo.methods.credit.base import CREDITS, CreditAssigner, register_credit
from fedgrpo.grpo.methods.credit.gae import gae

__all__ = [
    "CREDITS",
    "CreditAssigner",
    "gae",
    "ppo",
    "register_credit",
    "vine",
]
