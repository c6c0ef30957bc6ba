"""Train a reward model from pairwise preferences (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.judges.classifier import (
    MAX_LENGTH,
    classify,
    encode_pair,
    load_classifier,
    on_device,
    prepared,
)
from fedgrpo.rewards.judges.reward_model import RewardModel

Classifier = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class PreferencePair:
    """Two completions of one prompt, of which somebody preferred the first.

    The representation shows none of the texts.
    """

    prompt: str | Chat = field(repr=False)
    chosen: str | Chat = field(repr=False)
    rejected: str | Chat = field(repr=False)


@dataclass(frozen=True)
class TrainedRewardModel:
    """A reward model and how its training went."""

    reward: RewardModel
    """Ready for a :class:`RewardMixture`."""
    losses: tuple[float, ...]
    """Mean loss of each epoch, in nats; log 2 is chance."""


def train_reward_model(
    base: str | Classifier,
    pairs: Sequence[PreferencePair],
    *,
    epochs: int = 1,
    batch: int = 16,
    learning_rate: float = 1e-5,
    device: str = "auto",
    max_length: int = MAX_LENGTH,
    seed: int = 0,
) -> TrainedRewardModel:
    """Fit rewards r so that ``P(chosen over rejected) = sigmoid(r_chosen - r_rejected)``.

    All weights are trained (arXiv 2203.02155, 2009.01325) with AdamW, decayed linearly, gradients
    clipped to norm 1, dropout off, because both completions of a pair should meet the same model.
    Measure the result on pairs that were held out, with :func:`preference_accuracy`.

    Nothing here is private: a model trained on somebody's preferences may reveal them.

    Parameters
    ----------
    base:
        Folder or Hub name of any model that Hugging Face can load as a sequence classifier (a new
        head is made for a language model), or classifier and tokenizer. A given classifier is
        trained in place.
    pairs:
        At least one.
    epochs, batch, learning_rate:
        Passes over the pairs, pairs a step, and AdamW's peak rate.
    device:
        ``auto``, ``cpu`` or ``cuda``.
    max_length:
        Tokens of prompt and completion.
    seed:
        Of the new head and of the order of pairs.

    Raises
    ------
    RewardError
        If there are no pairs, the base cannot be loaded or has more than one output, or the loss
        stops being finite.
    """
    if not pairs:
        raise RewardError("there are no preference pairs", cure="give at least one")
    model, tokenizer = _classifier(base, device, seed)
    encoded = [_encode(tokenizer, pair, max_length) for pair in pairs]
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    steps = epochs * -(-len(pairs) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    model.requires_grad_(True).eval()
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(pairs), generator=generator).tolist()
        total = 0.0
        for start in range(0, len(order), batch):
            chosen = [encoded[i] for i in order[start : start + batch]]
            loss = _loss(model, tokenizer, chosen)
            total += float(loss.detach()) * len(chosen)
            _step(model, optimiser, loss)
            schedule.step()
        losses.append(total / len(pairs))
    reward = RewardModel.of(model, tokenizer, batch, max_length=max_length)
    return TrainedRewardModel(reward, tuple(losses))


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Bradley-Terry: mean of -log sigmoid(r_chosen - r_rejected).

    Parameters
    ----------
    chosen, rejected:
        Rewards, shape (n,).
    """
    return -logsigmoid(chosen - rejected).mean()


def preference_accuracy(reward: RewardModel, pairs: Sequence[PreferencePair]) -> float:
    """Share of pairs whose chosen completion gets the larger reward, in [0, 1]; a tie counts half.

    Raises
    ------
    RewardError
        If there are no pairs.
    """
    if not pairs:
        raise RewardError("there are no preference pairs", cure="give at least one")
    prompts = [pair.prompt for pair in pairs]
    better = torch.tensor(reward(prompts, [pair.chosen for pair in pairs]))
    worse = torch.tensor(reward(prompts, [pair.rejected for pair in pairs]))
    return float(((better > worse).double() + (better == worse).double() / 2).mean())


def _classifier(base: str | Classifier, device: str, seed: int) -> Classifier:
    if isinstance(base, str):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            base = load_classifier(base, new_head=True, num_labels=1, dtype=torch.float32)
    model, tokenizer = prepared(*base)
    if model.config.num_labels != 1:
        raise RewardError(
            f"a reward model has one output, this classifier {model.config.num_labels}",
            cure="load it with num_labels=1",
        )
    return on_device(model, device), tokenizer


def _encode(
    tokenizer: PreTrainedTokenizerBase, pair: PreferencePair, max_length: int
) -> list[dict[str, list[int]]]:
    return [
        encode_pair(tokenizer, pair.prompt, completion, max_length)
        for completion in (pair.chosen, pair.rejected)
    ]


def _loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[list[dict[str, list[int]]]],
) -> Tensor:
    """One forward pass over both completions of every pair."""
    both = [text for pair in pairs for text in pair]
    rewards = classify(model, tokenizer, both)[:, 0]
    loss = preference_loss(rewards[0::2], rewards[1::2])
    if not torch.isfinite(loss):
        raise RewardError(
            f"the preference loss is {float(loss.detach())}", cure="lower the learning rate"
        )
    return loss


def _step(model: PreTrainedModel, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
