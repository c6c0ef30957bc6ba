"""What samples completions, as a part: the own decode loop, or a site's own engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from fedgrpo.ground.errors import ModelError
from fedgrpo.ground.parts import Registry
from fedgrpo.grpo.rollout.sampling import Rollout, SamplingPlan, sample
from fedgrpo.model.lora import Adapter


class RolloutEngine(Protocol):
    """Samples with the adapter as it stands at each call.

    The update scores what it gave by its own model: the figure ``mismatch`` says how far the two
    are apart.
    """

    def sample(self, prompts: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        """Sample ``plan.group_size`` completions of each prompt, side by side, in the order given,
        each with the log-probabilities of the distribution that it was drawn from.
        """


ENGINES: Registry[Callable[[Adapter], RolloutEngine]] = Registry("grpo.engine")
register_engine = ENGINES.register


@register_engine("own")
class OwnEngine:
    """The decode loop of :mod:`fedgrpo.grpo.rollout.sampling`, with the adapter merged."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.generator = torch.Generator(adapter.base.device)
        """Replaced by the policy's."""

    def sample(self, prompts: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
        """See :class:`RolloutEngine`."""
        with self.adapter.merged():
            return sample(self.adapter.causal, prompts, plan, self.generator)


def checked(rollout: Rollout, prompts: Sequence[tuple[int, ...]], plan: SamplingPlan) -> Rollout:
    """What an engine gave, if it is what was asked for.

    Raises
    ------
    ModelError
        If shapes or log-probabilities are not what the update can learn from.
    """
    shape = (len(prompts) * plan.group_size, plan.max_tokens)
    tensors = (rollout.tokens, rollout.logps, rollout.mask)
    fits = all(tuple(each.shape) == shape for each in tensors) and len(rollout.ended) == shape[0]
    if not fits or rollout.group_size != plan.group_size or not rollout.logps.isfinite().all():
        raise ModelError(
            f"grpo.engine gave tokens of shape {tuple(rollout.tokens.shape)}, expected {shape}, "
            "finite log-probabilities and a mask of that shape",
            cure="return a Rollout as fedgrpo.grpo.rollout.sampling describes it",
        )
    return rollout
