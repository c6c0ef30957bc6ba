"""Any Hugging Face sequence classifier as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
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


class RewardModel:
    """Rewards a completion with what a sequence classifier says of it.

    A classifier with one output gives its value, as trained from preferences; one with several
    gives the probability of ``label``. A classifier whose tokenizer has a chat template reads
    prompt and completion as a conversation, another one as a pair of texts.

    Parameters
    ----------
    name_or_path:
        A folder, or a name on the Hub.
    device:
        ``auto``, ``cpu`` or ``cuda``.
    batch:
        Completions judged together.
    label:
        Index of the output that is good, for a classifier with several.
    max_length:
        Tokens of prompt and completion.

    Raises
    ------
    RewardError
        If it cannot be loaded, or has several outputs and no label is named.
    """

    __name__ = "reward_model"

    def __init__(
        self,
        name_or_path: str,
        device: str = "auto",
        batch: int = 16,
        *,
        label: int | None = None,
        max_length: int = MAX_LENGTH,
    ) -> None:
        model, tokenizer = load_classifier(name_or_path)
        self._take(on_device(model, device), tokenizer, batch, label, max_length)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: int = 16,
        *,
        label: int | None = None,
        max_length: int = MAX_LENGTH,
    ) -> Self:
        """Use a classifier that is loaded already, on the device where it is."""
        made = cls.__new__(cls)
        made._take(model, tokenizer, batch, label, max_length)
        return made

    def _take(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: int,
        label: int | None,
        max_length: int,
    ) -> None:
        outputs = model.config.num_labels or 1
        if (outputs > 1) != (label is not None) or not 0 <= (label or 0) < outputs:
            raise RewardError(
                f"the reward model has {outputs} outputs and label is {label}",
                cure="name the good one of several outputs with label=0, 1, ...; leave it out for "
                "a single output",
            )
        self.model, self.tokenizer = prepared(model, tokenizer)
        self.model.eval().requires_grad_(False)
        self.batch, self.label, self.max_length = batch, label, max_length

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str | Chat], completions: Sequence[str | Chat], **_: object
    ) -> list[float]:
        """Reward each completion; sorted by length inside, so that little is padded."""
        pairs = list(zip(prompts, completions, strict=True))
        encoded = [encode_pair(self.tokenizer, p, c, self.max_length) for p, c in pairs]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
        rewards = [0.0] * len(encoded)
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            logits = classify(self.model, self.tokenizer, [encoded[i] for i in chosen])
            values = logits[:, 0] if self.label is None else logits.softmax(1)[:, self.label]
            for i, value in zip(chosen, values.tolist(), strict=True):
                rewards[i] = value
        return rewards

    def save(self, folder: str) -> None:
        """Write model and tokenizer; ``RewardModel(folder)`` loads them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
