"""Prompts as token ids."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from fedgrpo.data.prompts import Chat, Prompt
from fedgrpo.errors import DataError


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | Chat) -> list[int]:
    """Token ids of a prompt, ready for an answer; chat messages go through the template.

    Raises
    ------
    DataError
        If the prompt is a chat and the tokenizer has no template for one.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if tokenizer.chat_template is None:
        raise DataError(
            "prompts are chat messages, but the model's tokenizer has no chat template",
            cure="use text prompts, or a model with a chat template",
        )
    text = tokenizer.apply_chat_template(
        [dict(message) for message in prompt], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
