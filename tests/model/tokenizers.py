"""Small tokenizers of characters, with the habits of published ones."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "</s>", "<s>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>"]
LETTERS = "0123456789+-*=?:;,.<>|/ abcdefghijklmnopqrstuvwxyz\n"
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DATED = "{{ strftime_now('%d %m %Y') }}" + CHAT
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception(messages[0]['content']) }}"
    "{% endif %}" + CHAT
)


def tokenizer(
    template: str | dict[str, str] | None = CHAT, *, bos: bool = False, eos: bool = False
) -> PreTrainedTokenizerFast:
    """One that puts ``<s>`` before a text and ``</s>`` behind it, if told to."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS, "</think>"])}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast.decoder = decoders.Fuse()
    fast.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast.add_tokens([AddedToken("</think>", special=False)])
    if bos or eos:
        form = " ".join(["<s>"] * bos + ["$A"] + ["</s>"] * eos)
        ends = [("<s>", 2), ("</s>", 1)]
        fast.post_processor = TemplateProcessing(single=form, special_tokens=ends)
    made = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
    )
    if template is not None:
        made.chat_template = template
    return made
