"""Sequence classifiers of the Hugging Face kind: load one, encode for it, read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import ModelError, RewardError
from fedgrpo.model.base import choose_device, model_source
from fedgrpo.model.loading import load_model, load_tokenizer
from fedgrpo.rewards.judges.templates import prompt_text
from fedgrpo.rewards.verifiable.verifiers import completion_text

MAX_LENGTH = 2048
"""Tokens of prompt and completion; the longest inputs lose their beginning."""

_PAIR_AWARE = frozenset({"albert", "bert", "deberta", "deberta-v2", "electra", "xlnet"})
"""Models that know the first text of a pair from the second by ``token_type_ids``."""


def load_classifier(
    name_or_path: str, *, new_head: bool = False, **config: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier and its tokenizer.

    Adversary: see :mod:`fedgrpo.model.loading`.

    Parameters
    ----------
    name_or_path:
        A folder, or a name on the Hub.
    new_head:
        Whether the head may be made anew, to be trained. A reward whose head is made up says
        nothing.
    config:
        Overrides the model's configuration.

    Raises
    ------
    RewardError
        If it cannot be loaded, is not whole, or brings code.
    """
    try:
        source = model_source(name_or_path)
        model = load_model(
            AutoModelForSequenceClassification, source, "main", new_head=new_head, **config
        )
        tokenizer = load_tokenizer(source, "main")
    except ModelError as error:
        raise RewardError(
            f"reward model {name_or_path!r} cannot be loaded: {error.problem}", cure=error.cure
        ) from error
    return model, tokenizer


def on_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """Move a model to ``auto``, ``cpu`` or ``cuda``."""
    torch.nn.Module.to(model, choose_device(device))
    return model


def prepared(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Agree on padding: a decoder finds the last token by it."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | Chat,
    completion: str | Chat,
    max_length: int,
) -> dict[str, list[int]]:
    """Token ids of a prompt with its completion, and what else the tokenizer gives."""
    question, answer = prompt_text(prompt), completion_text(completion)
    if tokenizer.chat_template is None:
        return dict(tokenizer(question, answer, truncation=True, max_length=max_length))
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    text = tokenizer.apply_chat_template(
        [*asked, {"role": "assistant", "content": answer}], tokenize=False
    )
    options = {"add_special_tokens": False, "truncation": True, "max_length": max_length}
    return dict(tokenizer(text, **options))


def classify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[dict[str, list[int]]],
) -> Tensor:
    """Float32 logits of encoded texts, shape (n, outputs)."""
    padded = tokenizer.pad(list(encoded), return_tensors="pt").to(model.device)
    if model.config.model_type not in _PAIR_AWARE:
        padded.pop("token_type_ids", None)
    logits: Tensor = model(**padded).logits.float()
    return logits
