"""What completions teach, in fixed shapes: the loss of R prompts side by side, none of which sees
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedgrpo.grpo.experience import Experience
from fedgrpo.grpo.isolated.sampling import left_filled
from fedgrpo.grpo.losses import BatchTotals, compute_loss
from fedgrpo.grpo.scoring import token_logps, token_scores
from fedgrpo.model.grid_attention import GroupGrid
from fedgrpo.settings import GRPOSettings


@dataclass(frozen=True)
class TeachingBatch:
    """R rows of a prompt and its G completions, W + G * T columns.

    Attributes
    ----------
    ids, positions:
        int64, shape (R, W + G * T).
    grid:
        Who looks at whom.
    targets, mask:
        int64 and bool, shape (R * G, T): the completions' tokens, and which of them count.
    old_logps, advantages:
        float32, shapes (R * G, T) and (R * G,).
    """

    ids: Tensor
    positions: Tensor
    grid: GroupGrid
    targets: Tensor
    mask: Tensor
    old_logps: Tensor
    advantages: Tensor


def teaches(experience: Experience, grpo: GRPOSettings) -> list[int]:
    """Completions of a prompt that move the model; see :meth:`Experience.useful`."""
    return experience.useful(
        # A bonus moves every token, whatever its reward.
        with_silent=grpo.entropy_weight > 0,
        with_truncated=grpo.overlong_share > 0,
    )


def longest_lesson(experience: Experience, grpo: GRPOSettings) -> int:
    """Tokens of the longest completion that teaches; 0 if none does."""
    lengths = experience.rollout.lengths()
    return max((int(lengths[i]) for i in teaches(experience, grpo)), default=0)


def teaching_batch(
    groups: Sequence[Experience | None], shape: tuple[int, int], grpo: GRPOSettings, pad_id: int
) -> TeachingBatch:
    """Lay out the groups of R prompts.

    Parameters
    ----------
    groups:
        One prompt each. None fills the batch, and teaches nothing.
    shape:
        Columns of prompts and of completions, W and T.
    """
    width, length = shape
    prompts = [group.rollout.prompts[0] if group else () for group in groups]
    ids, real = left_filled(prompts, width, pad_id)
    cells = (len(groups), grpo.group_size, length)
    targets = torch.full(cells, pad_id, dtype=torch.long)
    there, mask = (torch.zeros(cells, dtype=torch.bool) for _ in range(2))
    old_logps, advantages = torch.zeros(cells), torch.zeros(cells[:2])
    for row, group in enumerate(groups):
        if group is None:
            continue
        rollout, kept = group.rollout, teaches(group, grpo)
        targets[row, kept] = rollout.tokens[kept, :length]
        old_logps[row, kept] = rollout.logps[kept, :length]
        there[row, kept] = mask[row, kept] = rollout.mask[kept, :length]
        advantages[row, kept] = group.advantages[kept]
    starts = real.sum(1)[:, None, None] + torch.arange(length).expand(cells)
    positions = torch.cat([(real.cumsum(1) - 1).clamp(min=0), starts.flatten(1)], 1)
    return TeachingBatch(
        torch.cat([ids, targets.flatten(1)], 1),
        positions,
        GroupGrid.of(real, there),
        targets.flatten(0, 1),
        mask.flatten(0, 1),
        old_logps.flatten(0, 1),
        advantages.flatten(),
    )


def batch_loss(model: PreTrainedModel, batch: TeachingBatch, grpo: GRPOSettings) -> Tensor:
    """Sum of the rows' losses, with divisors that no prompt can change."""
    hidden, targets = predicting(model, batch), batch.targets.flatten().to(model.device)
    head, each = model.get_output_embeddings(), len(hidden) // len(batch.ids)
    entropy = None
    if grpo.entropy_weight:
        logps, entropies = token_scores(head, hidden, targets, grpo.temperature, each=each)
        entropy = entropies.view(batch.targets.shape)
    else:
        logps = token_logps(head, hidden, targets, grpo.temperature, each=each)
    length = grpo.max_completion_length
    return compute_loss(
        grpo.loss,
        logps.view(batch.targets.shape),
        batch.old_logps.to(model.device),
        batch.advantages.to(model.device),
        batch.mask.to(model.device),
        clip_low=grpo.clip_low or None,
        clip_high=grpo.clip_high or None,
        entropy=entropy,
        entropy_weight=grpo.entropy_weight,
        totals=BatchTotals(grpo.group_size, grpo.group_size * length, length),
    ).loss


def predicting(model: PreTrainedModel, batch: TeachingBatch) -> Tensor:
    """Hidden states that predict the completions' columns, shape (R * G * T, d)."""
    backbone: nn.Module = getattr(model, model.base_model_prefix)
    device = model.device
    states: Tensor = backbone(
        input_ids=batch.ids.to(device),
        # A 4-D mask is handed on as it is, and the grid takes its place.
        attention_mask=torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device),
        position_ids=batch.positions.to(device),
        use_cache=False,
        packing=batch.grid.to(device),
    ).last_hidden_state
    group, length = batch.grid.completions.shape[1:]
    width = batch.ids.shape[1] - group * length
    # The prompt's last token predicts the first of each completion.
    first = states[:, None, width - 1 : width].expand(-1, group, -1, -1)
    rest = states[:, width:].unflatten(1, (group, length))[:, :, :-1]
    return torch.cat([first, rest], 2).flatten(0, 2)
