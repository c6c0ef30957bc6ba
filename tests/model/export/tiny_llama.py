"""A small random model with a byte-level tokenizer, as GGUF knows them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from fedgrpo.model.export.gguf_file import SPLITS

TEXTS = ["the sum of 12 and 30 is 42", "reverse the letters of a word", "sort 31425 into 12345"]
CHAT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}<|assistant|>"


def byte_level(split: str) -> PreTrainedTokenizerFast:
    """A tokenizer that splits text as llama.cpp's kind of this name does."""
    made = Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    for pattern, name in SPLITS.items():
        if name == split:
            steps = [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    special = ["<eos>", "<pad>", "<|user|>", "<|assistant|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=letters, show_progress=False
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = CHAT
    return fast


def write_model(folder: Path, kind: str, split: str, dtype: str = "float32") -> Path:
    """Write a model of a family with random weights, biases included."""
    torch.manual_seed(0)
    tokenizer = byte_level(split)
    head = 128 if kind == "qwen3" else 16  # All that transformers' reader of GGUF believes of it.
    config = CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=head, max_position_embeddings=128,
        eos_token_id=0, pad_token_id=1, bos_token_id=None, tie_word_embeddings=kind == "qwen3",
        sliding_window=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
