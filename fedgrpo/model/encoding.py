"""Prompts as token ids."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.chats import Chat, Prompt, plain_text
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.mishaps import pass_on_interrupt


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
    return list(tokenizer(_rendered(tokenizer, prompt), add_special_tokens=False)["input_ids"])


def unit_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | Chat) -> str:
    """Text that a model reads of a prompt: prompts with the same are one unit.

    A chat that the template refuses cannot be encoded either; it is told from others by its
    messages, without an error.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        return _rendered(tokenizer, prompt)
    except BaseException as error:
        # Templates are programs, and raise what they like.
        pass_on_interrupt(error)
        return plain_text(tuple(prompt))


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: Chat | tuple[Mapping[str, str], ...]
) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in chat], tokenize=False, add_generation_prompt=True
        )
    )
