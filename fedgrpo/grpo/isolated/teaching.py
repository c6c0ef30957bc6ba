"""What completions teach, in fixed shapes: the loss of R prompts side by side, none of which sees
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fedgrpo.grpo.isolated.sampling import left_filled
from fedgrpo.grpo.isolated.shapes import TeachingShape
from fedgrpo.grpo.learning.losses import BatchTotals, compute_loss
from fedgrpo.grpo.rollout.choice.warping import NOTHING, History, Warped, Warping
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.scoring import token_logps, token_scores
from fedgrpo.model.family.passes import arguments, output_head, text_part
from fedgrpo.model.kernels.grid_attention import GroupGrid, picked
from fedgrpo.settings import GRPOSettings


@dataclass(frozen=True)
class TeachingBatch:
    """R rows of a prompt, W columns, and the tokens of its G completions, N columns.

    Attributes
    ----------
    ids, positions:
        int64, shape (R, W + N).
    grid:
        Who looks at whom, and which column is which completion's.
    before, targets:
        int64, shape (R, N): the column that predicts each token, and the token.
    mask:
        Bool, shape (R * G, T): where completions have tokens that count.
    old_logps, advantages:
        float32, shapes (R * G, T) and (R * G,).
    history:
        What stands before each of the R * N tokens.
    """

    ids: Tensor
    positions: Tensor
    grid: GroupGrid
    before: Tensor
    targets: Tensor
    mask: Tensor
    old_logps: Tensor
    advantages: Tensor
    history: History


def taught_lengths(experience: Experience, grpo: GRPOSettings) -> list[int]:
    """Tokens of each completion that moves the model; see :meth:`Experience.useful`."""
    lengths = experience.rollout.lengths().tolist()
    return [lengths[i] for i in _kept(experience, grpo)]


def _kept(experience: Experience, grpo: GRPOSettings) -> list[int]:
    return experience.useful(
        # A bonus moves every token, whatever its reward.
        with_silent=grpo.entropy_weight > 0,
        with_truncated=grpo.overlong_share > 0,
    )


def teaching_batch(
    groups: Sequence[Experience | None], shape: TeachingShape, grpo: GRPOSettings, pad_id: int
) -> TeachingBatch:
    """Lay out the groups of R prompts, one a row. None fills the batch, and teaches nothing."""
    cells = (len(groups), grpo.group_size, shape.length)
    tokens = torch.full(cells, pad_id, dtype=torch.long)
    there = torch.zeros(cells, dtype=torch.bool)
    old_logps, advantages = torch.zeros(cells), torch.zeros(cells[:2])
    for row, group in enumerate(groups):
        if group is None:
            continue
        rollout, kept = group.rollout, _kept(group, grpo)
        # A batch may have fewer columns than the longest completion that the settings allow.
        wide = min(shape.length, rollout.tokens.shape[1])
        tokens[row, kept, :wide] = rollout.tokens[kept, :wide]
        old_logps[row, kept, :wide] = rollout.logps[kept, :wide]
        there[row, kept, :wide] = rollout.mask[kept, :wide]
        advantages[row, kept] = group.advantages[kept]
    prompts = [group.rollout.prompts[0] if group else () for group in groups]
    ids, real = left_filled(prompts, shape.width, pad_id)
    grid = GroupGrid.of(real, there, shape.span)
    index = torch.arange(shape.length).expand(cells)
    starts = real.sum(1)[:, None, None] + index
    # The prompt's last token predicts the first of each completion.
    columns = torch.arange(shape.width - 1, shape.width + shape.span - 1).expand(len(groups), -1)
    first = picked(torch.where(index == 0, 1, 0).flatten(1), grid.put, 1) == 1
    targets = picked(tokens.flatten(1), grid.put, 1)
    sequences = torch.arange(cells[0] * cells[1]).view(*cells[:2], 1).expand(cells)
    before = ids.masked_fill(~real, NOTHING).repeat_interleave(grpo.group_size, 0)
    history = History(
        torch.cat([before, tokens.flatten(0, 1)], 1),
        picked(sequences.flatten(1), grid.put, 1).flatten(),
        picked(shape.width + index.flatten(1), grid.put, 1).flatten(),
    )
    return TeachingBatch(
        torch.cat([ids, targets], 1),
        torch.cat([(real.cumsum(1) - 1).clamp(min=0), picked(starts.flatten(1), grid.put, 1)], 1),
        grid,
        torch.where(first, shape.width - 1, columns),
        targets,
        there.flatten(0, 1),
        old_logps.flatten(0, 1),
        advantages.flatten(),
        history,
    )


def batch_loss(model: PreTrainedModel, batch: TeachingBatch, grpo: GRPOSettings) -> Tensor:
    """Sum of the rows' losses, with divisors that no prompt can change."""
    device, length = model.device, grpo.max_completion_length
    logps, entropy = _scores(model, batch, grpo)
    return compute_loss(
        grpo.loss,
        logps,
        batch.old_logps.to(device),
        batch.advantages.to(device),
        batch.mask.to(device),
        clip_low=grpo.clip_low or None,
        clip_high=grpo.clip_high or None,
        entropy=entropy,
        entropy_weight=grpo.entropy_weight,
        totals=BatchTotals(grpo.group_size, grpo.group_size * length, length),
    ).loss


def _scores(
    model: PreTrainedModel, batch: TeachingBatch, grpo: GRPOSettings
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities, and entropies where a bonus asks for them; float32, shape (R * G, T)."""
    grid, each = batch.grid.to(model.device), batch.targets.shape[1]
    hidden = _predicting(model, batch, grid).flatten(0, 1)
    targets, head = batch.targets.flatten().to(model.device), output_head(model)
    warped = Warped.of(Warping.of(grpo), batch.history.to(model.device))

    def placed(flat: Tensor) -> Tensor:
        width = batch.ids.shape[1] - each
        return picked(flat.view(-1, each), (grid.take - width), 1).view(batch.mask.shape)

    if grpo.entropy_weight:
        logps, entropy = token_scores(
            head, hidden, targets, grpo.temperature, each=each, warped=warped
        )
        return placed(logps), placed(entropy)
    logps = token_logps(head, hidden, targets, grpo.temperature, each=each, warped=warped)
    return placed(logps), None


def _predicting(model: PreTrainedModel, batch: TeachingBatch, grid: GroupGrid) -> Tensor:
    """Hidden states that predict each column of the completions, shape (R, N, d)."""
    device, part = model.device, text_part(model)
    # A 4-D mask is handed on as it is, and the grid takes its place.
    nothing = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device)
    given = arguments(part, batch.ids.to(device), nothing, batch.positions.to(device))
    states: Tensor = part(**given, packing=grid).last_hidden_state
    return picked(states, batch.before.to(device), 1)
