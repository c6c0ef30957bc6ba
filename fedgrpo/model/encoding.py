"""Prompts as token ids: one beginning, no end before the answer, and a user's text as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from fedgrpo.ground.chats import Chat, Prompt, plain_text
from fedgrpo.ground.errors import DataError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.model.chat_style import PLAIN, ChatStyle

_NOT_RENDERED = (
    "change the row's messages, or choose another template with data.chat_template; try it by hand "
    "with tokenizer.apply_chat_template"
)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt | Chat, style: ChatStyle = PLAIN
) -> list[int]:
    """Token ids of a prompt, ready for an answer; chat messages go through the template.

    A last message of the assistant is left open, to be continued. What spells a control token
    within a message of anybody else stays text; a text prompt may be a rendered template.

    Raises
    ------
    DataError
        If the prompt is a chat and there is no template for it, or the template refuses it. Its
        text is not named, nor is the template's own message, which may quote it.
    """
    if isinstance(prompt, str):
        return _opened(tokenizer, prompt)
    return [int(token) for token in _rendered(tokenizer, _messages(prompt), style, tokenize=True)]


def unit_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt | Chat, style: ChatStyle = PLAIN
) -> str:
    """Text that a model reads of a prompt: prompts with the same are one unit.

    A chat that the template refuses cannot be encoded either; it is told from others by its
    messages, without an error.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        return str(_rendered(tokenizer, _messages(prompt), style, tokenize=False))
    except BaseException as error:
        # Templates are programs, and raise what they like.
        pass_on_interrupt(error)
        return plain_text(tuple(prompt))


def _opened(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text as the tokenizer begins it, once, and without what it puts at the end."""
    bare = _ids(tokenizer, text)
    if not tokenizer.num_special_tokens_to_add():
        return bare
    ids = list(tokenizer(text)["input_ids"])
    if bare == ids or not bare:
        return ids
    begins = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), None)
    if begins is None:  # It writes the text itself in another way where it adds to it.
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    beginning = ids[:begins]
    return bare if beginning == bare[:begins] else beginning + bare


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _messages(prompt: Chat | tuple[Mapping[str, str], ...]) -> Chat:
    return [dict(message) for message in prompt]


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, style: ChatStyle, *, tokenize: bool
) -> Any:
    """Text of a chat, or its token ids."""
    continues = bool(chat) and chat[-1]["role"] == "assistant"
    # What messages spell of control tokens is no control token; only in ids does that show.
    safely: dict[str, Any] = (
        {"sanitize_control_tokens": True, "return_dict": False} if tokenize else {}
    )
    template, told = style.template_of(tokenizer), style.arguments()
    try:
        return tokenizer.apply_chat_template(
            chat,
            chat_template=template,
            tokenize=tokenize,
            add_generation_prompt=not continues,
            continue_final_message=continues,
            **safely,
            **told,
        )
    except BaseException as error:
        # Templates are programs, and raise what they like, with what text they like.
        pass_on_interrupt(error)
        what = "leave its last message open" if continues else "be read by the chat template"
        raise DataError(
            f"a chat cannot {what} ({type(error).__name__})", cure=_NOT_RENDERED
        ) from None
