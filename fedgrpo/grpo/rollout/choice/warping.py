"""What turns a model's distribution into the one that is sampled from, alike for whoever samples
and whoever scores.

Penalty and truncations are those of transformers' logits processors, in its order: repetition
penalty (arXiv 1909.05858), top-k (1805.04833), top-p (1904.09751), min-p (2407.01082). They look at
one row at a time, and at no order of equal logits, so that a row is the same beside any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedgrpo.settings import GRPOSettings

NOTHING = -1
"""In the place of a token where there is none."""


@dataclass(frozen=True)
class Warping:
    """What is kept of a distribution, and what is made less likely. The defaults keep it as it is.

    Attributes
    ----------
    top_k:
        Most likely tokens that are kept; 0 keeps all.
    top_p:
        Probability of the fewest most likely tokens that are kept.
    min_p:
        Least probability, as a share of the most likely token's.
    repetition_penalty:
        Divides the positive logits of tokens that prompt or completion has already, and multiplies
        the negative ones.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, grpo: GRPOSettings) -> Warping:
        """The one that the settings describe."""
        return cls(grpo.top_k, grpo.top_p, grpo.min_p, grpo.repetition_penalty)

    @property
    def truncates(self) -> bool:
        """Whether any token may be left out."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)

    @property
    def penalises(self) -> bool:
        """Whether it matters which tokens there were."""
        return self.repetition_penalty != 1

    def applied(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """Logits of the distribution that is sampled from.

        Parameters
        ----------
        logits:
            Float32, shape (rows, V), divided by the temperature.
        seen:
            Bool, shape (rows, V): the tokens that each row has already; None without a penalty.
        """
        if self.penalises and seen is not None:
            logits = logits * self.factor(logits, seen)
        return logits.masked_fill(self.removed(logits), -torch.inf) if self.truncates else logits

    def factor(self, logits: Tensor, seen: Tensor) -> Tensor:
        """What the penalty multiplies each logit by, shape (rows, V)."""
        up, down = self.repetition_penalty, 1 / self.repetition_penalty
        return torch.where(seen, torch.where(logits < 0, up, down), 1.0)

    def removed(self, logits: Tensor) -> Tensor:
        """True where a token is left out, bool, shape (rows, V). Never the most likely one; of
        equal tokens at the edge, none.
        """
        removed = torch.zeros_like(logits, dtype=torch.bool)
        cuts = (
            (self.top_k, self._beyond_k),
            (self.top_p < 1, self._beyond_p),
            (self.min_p, self._below_p),
        )
        for cut in (cut for is_on, cut in cuts if is_on):
            removed |= cut(logits.masked_fill(removed, -torch.inf))
        return removed

    def _beyond_k(self, logits: Tensor) -> Tensor:
        least = logits.topk(min(self.top_k, logits.shape[1])).values[:, -1:]
        return logits < least

    def _beyond_p(self, logits: Tensor) -> Tensor:
        ordered = logits.sort().values
        left_out = ordered.softmax(-1).cumsum(-1) <= 1 - self.top_p
        place = left_out.sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
        return logits < ordered.gather(1, place)

    def _below_p(self, logits: Tensor) -> Tensor:
        weights = logits.softmax(-1)
        return weights < self.min_p * weights.amax(-1, keepdim=True)


PLAIN = Warping()
"""The model's own distribution."""


@dataclass(frozen=True)
class History:
    """What stands before each of K tokens.

    Attributes
    ----------
    ids:
        int64, shape (N, S): the prompt and the tokens of each of N completions, ``NOTHING`` where
        there is no token.
    owner, before:
        int64, shape (K,): the completion of each token, and the columns of ``ids`` before it.
    """

    ids: Tensor
    owner: Tensor
    before: Tensor

    def to(self, device: torch.device) -> History:
        """The same on a device."""
        return History(self.ids.to(device), self.owner.to(device), self.before.to(device))

    def seen(self, rows: slice, vocabulary: int) -> Tensor:
        """The tokens that these of the K rows have already, bool, shape (rows, V)."""
        ids = self.ids[self.owner[rows]]
        columns = torch.arange(ids.shape[1], device=ids.device)
        there = columns < self.before[rows, None]
        return marked(ids.masked_fill(~there, NOTHING), vocabulary)


@dataclass(frozen=True)
class Warped:
    """Warps logits where tokens are known and scored: each stays in, whatever else is left out.

    At the sampler's own weights it was in. Later it may have left what is kept; its ratio is then
    to what is kept and itself, instead of 0, so that it can come back.
    """

    warping: Warping
    history: History

    @classmethod
    def of(cls, warping: Warping, history: History) -> Warped | None:
        """None where distributions stay as they are."""
        return cls(warping, history) if warping.truncates or warping.penalises else None

    def __call__(
        self, logits: Tensor, targets: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor | None]:
        """Logits, and the derivative of each kept one by what it was, None for 1; shape (n, V).

        Parameters
        ----------
        logits:
            Float32, shape (n, V), divided by the temperature.
        targets:
            int64, shape (n, 1).
        rows:
            Which of the K tokens these are.
        """
        factor = None
        if self.warping.penalises:
            seen = self.history.seen(rows, logits.shape[1])
            factor = self.warping.factor(logits.detach(), seen)
            logits = logits * factor
        if self.warping.truncates:
            removed = self.warping.removed(logits.detach()).scatter(1, targets, value=False)
            logits = logits.masked_fill(removed, -torch.inf)
        return logits, factor


def marked(ids: Tensor, vocabulary: int) -> Tensor:
    """Which tokens stand in each row, bool, (rows, V), of ids (rows, S) with ``NOTHING`` among."""
    seen = ids.new_zeros(len(ids), vocabulary + 1, dtype=torch.bool)
    return seen.scatter_(1, ids.masked_fill(ids == NOTHING, vocabulary), True)[:, :vocabulary]


def left_filled_ids(prompts: Sequence[Sequence[int]]) -> Tensor:
    """Prompts as rows that end together, int64, (P, W), filled with ``NOTHING``."""
    width = max(map(len, prompts), default=0)
    ids = torch.full((len(prompts), width), NOTHING)
    for row, prompt in zip(ids, prompts, strict=True):
        if prompt:
            row[-len(prompt) :] = torch.tensor(prompt)
    return ids
