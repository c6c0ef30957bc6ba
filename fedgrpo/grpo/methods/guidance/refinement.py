"""Critique-GRPO: completions are criticised and tried again, and the best of these attempts joins
its group (arXiv 2506.03106).

The refinement was sampled from a prompt with the critique and is learned under the plain one, by
the loss ``critique_grpo``, with advantages over the joined group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError
from fedgrpo.grpo.methods.guidance.templates import fill_prompt
from fedgrpo.grpo.rollout.packing import PackedBatch, pack
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.model.chat_style import PLAIN, ChatStyle
from fedgrpo.model.encoding import encode_prompt
from fedgrpo.rewards.composite import RewardResult

Floats = NDArray[np.float64]

Critique = Callable[[PromptRow, str, float], str]
"""From a prompt, a completion's text and its reward to what is wrong or right about it."""

TEMPLATE = """\
{prompt}

Previous solution:
{completion}

Critique: {critique}

Answer again. Correct what the critique names, and reason step by step.
"""
"""How a completion is handed back; fields ``{prompt}``, ``{completion}`` and ``{critique}``."""


@dataclass(frozen=True)
class JoinedGroups:
    """P groups of G completions and one refinement each, which is the last of its group.

    Attributes
    ----------
    rollout:
        Group size G + 1, over the plain prompts.
    rewards:
        Of each completion, shape (P*(G+1),).
    refined:
        Bool, shape (P*(G+1),): the refinements, as the loss ``critique_grpo`` wants to know them.
    """

    rollout: Rollout
    rewards: RewardResult
    refined: Tensor


def indicative_critique(passing: float, answer_column: str | None) -> Critique:
    """The paper's plainest critique: right or wrong, and the reference answer if there is one.

    Parameters
    ----------
    passing:
        Least reward of a completion that counts as right.
    answer_column:
        Column with the answer; None keeps it back. Check it by
        :func:`fedgrpo.grpo.methods.guidance.templates.require_column` first.
    """

    def critique(row: PromptRow, completion: str, reward: float) -> str:
        verdict = "correct" if reward >= passing else "incorrect"
        if answer_column is None:
            return f"The solution is {verdict}."
        return f"The solution is {verdict}. The reference answer is {row.columns[answer_column]}."

    return critique


def refinement_prompts(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[PromptRow],
    rollout: Rollout,
    rewards: Floats,
    critique: Critique,
    *,
    template: str = TEMPLATE,
    limit: int,
    style: ChatStyle = PLAIN,
) -> list[tuple[int, ...]]:
    """Token prompts that ask for a better completion, one for each completion.

    Parameters
    ----------
    rows:
        The prompts, P.
    rollout, rewards:
        Their completions, P*G, and the reward of each.
    limit:
        Tokens that such a prompt may have. A completion that does not fit is shown without its
        beginning: its answer stands at its end.
    style:
        How chats are rendered.

    Raises
    ------
    DataError
        If not even an empty completion fits. Names the position of the prompt in ``rows`` only.
    """
    prompts = []
    for number, ids in enumerate(completion_ids(rollout)):
        row = rows[number // rollout.group_size]
        remark = critique(row, _text(tokenizer, ids), float(rewards[number]))
        prompt = _fitted(tokenizer, row, ids, remark, template, limit, style)
        if len(prompt) > limit:
            raise DataError(
                f"prompt {number // rollout.group_size + 1} of the step and its critique have "
                f"{len(prompt)} tokens, allowed are {limit}",
                cure="shorten the critique or the template, or allow longer prompts",
            )
        prompts.append(tuple(prompt))
    return prompts


def _fitted(
    tokenizer: PreTrainedTokenizerBase,
    row: PromptRow,
    ids: list[int],
    remark: str,
    template: str,
    limit: int,
    style: ChatStyle,
) -> list[int]:
    """The prompt with as much of the completion's end as there is room for."""
    shown = ids
    while True:
        filled = fill_prompt(row, template, completion=_text(tokenizer, shown), critique=remark)
        prompt = encode_prompt(tokenizer, filled, style)
        excess = len(prompt) - limit
        if excess <= 0 or not shown:
            return prompt
        shown = shown[excess:]


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def join_best(
    rollout: Rollout,
    rewards: RewardResult,
    refinements: Rollout,
    verdicts: RewardResult,
    score: Callable[[Rollout, PackedBatch], Tensor],
    *,
    tokens_per_batch: int,
) -> JoinedGroups:
    """Join the best refinement of each prompt to its group.

    Best is the highest reward, then one that ended, then the first.

    Parameters
    ----------
    rollout, rewards:
        P groups of G completions, and their rewards.
    refinements, verdicts:
        One refinement of each completion, in their order (P*G prompts, one completion each), and
        its reward as an answer to the plain prompt.
    score:
        Log-probabilities of packed completions under the policy as it stands, shape (N, T). The
        chosen refinements get theirs under the plain prompt: what the sampler recorded belongs to
        another one.
    tokens_per_batch:
        As :func:`fedgrpo.grpo.rollout.packing.pack` takes it.
    """
    size, prompts = rollout.group_size, len(rollout.prompts)
    ended = refinements.ended.numpy()
    order = np.lexsort((~ended, -verdicts.total, np.repeat(np.arange(prompts), size)))
    best = order.reshape(prompts, size)[:, 0]
    joined = Rollout(
        rollout.prompts,
        _beside(rollout.tokens, refinements.tokens[best]),
        _beside(rollout.logps, refinements.logps[best]),
        _beside(rollout.mask, refinements.mask[best]),
        _beside(rollout.ended, refinements.ended[best]),
        size + 1,
    )
    refined = _beside(torch.zeros(prompts * size), torch.ones(prompts)).bool()
    with torch.no_grad():
        for batch in pack(
            joined, refined.nonzero()[:, 0].tolist(), tokens_per_batch=tokens_per_batch
        ):
            joined.logps[batch.completions] = score(joined, batch).cpu()
    return JoinedGroups(
        replace(joined, logps=joined.logps * joined.mask),
        RewardResult(
            _beside_array(rewards.total, verdicts.total[best]),
            {
                name: _beside_array(values, verdicts.per_function[name][best])
                for name, values in rewards.per_function.items()
            },
            measured={
                name: _beside_array(values, verdicts.measured[name][best])
                for name, values in rewards.measured.items()
            },
        ),
        refined,
    )


def _beside(groups: Tensor, extra: Tensor) -> Tensor:
    """Append row p of ``extra`` to group p."""
    return torch.cat([groups.unflatten(0, (len(extra), -1)), extra[:, None]], 1).flatten(0, 1)


def _beside_array(groups: Floats, extra: Floats) -> Floats:
    return np.column_stack([groups.reshape(len(extra), -1), extra]).ravel()
