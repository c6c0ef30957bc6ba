"""A merged model as one GGUF file, for llama.cpp and what is built on it.

The ``gguf`` package has the names of tensors and fields; which of them a family fills, and how a
tokenizer splits text, is known here for a few families alone. Another one would load and answer
wrongly, so it is refused: llama.cpp's own ``convert_hf_to_gguf.py`` reads the merged folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fedgrpo.ground.errors import ModelError, RunError

PERMUTED = {"llama": True, "mistral": True, "qwen2": False, "qwen3": False}
"""Families by transformers' name of the type: whether llama.cpp wants the two halves of rotary
positions beside each other.
"""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {_WORDS % r"\p{N}{1,3}": "llama-bpe", _WORDS % r"\p{N}": "qwen2"}
"""llama.cpp's name of how text is split, by the pattern in ``tokenizer.json``."""

_CURE = (
    "fedgrpo export RUN --merged DIR, then llama.cpp's own convert_hf_to_gguf.py DIR, which knows "
    "more"
)


def save_gguf(folder: Path, file: Path) -> None:
    """Write the model of a merged folder as GGUF, in its own precision. Holds it in memory once.

    Parameters
    ----------
    folder:
        As :func:`fedgrpo.model.export.merging.save_merged` writes it: float32 or bfloat16.
    file:
        Is replaced, once the new one is whole.

    Raises
    ------
    ModelError
        If the package ``gguf`` is missing, or the family, its positions or its tokenizer are not
        known here.
    """
    gguf = _library()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    check_known(config)
    split = _split(json.loads((folder / "tokenizer.json").read_text("utf-8")))
    family = "llama" if config["model_type"] == "mistral" else config["model_type"]
    with tempfile.TemporaryDirectory(dir=file.absolute().parent) as spare:
        draft = Path(spare) / file.name
        writer = gguf.GGUFWriter(draft, family)
        _write_shape(writer, config)
        _write_tokens(gguf, writer, folder, config, split)
        exact = _write_tensors(gguf, writer, folder, config)
        kinds = gguf.LlamaFileType
        writer.add_file_type(kinds.ALL_F32 if exact else kinds.MOSTLY_BF16)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        draft.replace(file)


def check_place(file: Path) -> None:
    """Refuse what is known before a model is loaded: a place where no file can be written, a
    missing package. Raises RunError or ModelError.
    """
    if file.is_dir():
        raise RunError(f"{file} is a folder", cure=f"name a file, for example {file}/model.gguf")
    if not (folder := file.absolute().parent).is_dir():
        raise RunError(f"there is no folder {folder} for {file.name}", cure="make it first")
    _library()


def check_known(config: Mapping[str, Any]) -> None:
    """Refuse a model that would load and answer wrongly; raises ModelError if it is one."""
    kind = config.get("model_type")
    if kind not in PERMUTED:
        raise ModelError(
            f"model type {kind!r} is none that can be written as GGUF here "
            f"({', '.join(sorted(PERMUTED))})",
            cure=_CURE,
        )
    if (positions := _rope(config).get("rope_type", "default")) != "default":
        raise ModelError(f"its rotary positions are of the kind {positions!r}", cure=_CURE)
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise ModelError("its attention has a sliding window", cure=_CURE)


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise ModelError(
            "GGUF needs the package gguf", cure="pip install 'fedgrpo[gguf]', or choose --merged"
        ) from None
    return gguf


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    named: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return named


def _head(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _write_shape(writer: Any, config: Mapping[str, Any]) -> None:
    heads, head = config["num_attention_heads"], _head(config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(_rope(config).get("rope_theta") or config.get("rope_theta", 1e4))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _split(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name of the split of a byte-level tokenizer."""
    first = tokenizer.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers") or [first]
    kinds = [step.get("type") for step in steps]
    byte_level = tokenizer["model"].get("type") == "BPE" and "ByteLevel" in kinds
    plain = not tokenizer.get("normalizer") or tokenizer["normalizer"].get("type") == "NFC"
    if byte_level and plain and kinds == ["ByteLevel"]:
        return "gpt-2"
    if byte_level and plain and kinds == ["Digits", "ByteLevel"]:
        return "smollm"
    patterns = [step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"]
    if byte_level and plain and len(patterns) == 1 and patterns[0] in SPLITS:
        return SPLITS[patterns[0]]
    kind = tokenizer["model"].get("type")
    raise ModelError(f"how its tokenizer ({kind}) splits text is not known here", cure=_CURE)


def _write_tokens(
    gguf: Any, writer: Any, folder: Path, config: Mapping[str, Any], split: str
) -> None:
    tokens, kinds = _tokens(gguf, folder / "tokenizer.json", config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens))
    special.add_to_gguf(writer, quiet=True)


def _tokens(gguf: Any, path: Path, size: int) -> tuple[list[str], list[int]]:
    """Text and kind of each token; a place without a token is unused."""
    kinds, tree = gguf.TokenType, json.loads(path.read_text("utf-8"))
    texts, found = [f"[PAD{i}]" for i in range(size)], [kinds.UNUSED] * size
    for text, number in tree["model"]["vocab"].items():
        texts[number], found[number] = text, kinds.NORMAL
    for added in tree["added_tokens"]:
        texts[added["id"]] = added["content"]
        found[added["id"]] = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
    return texts, found


def _write_tensors(gguf: Any, writer: Any, folder: Path, config: Mapping[str, Any]) -> bool:
    """Add every tensor under its name there; tell whether all are float32."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == writer.arch)
    names, exact = gguf.get_tensor_name_map(arch, config["num_hidden_layers"]), True
    brain = gguf.GGMLQuantizationType.BF16
    for name, tensor in _tensors(folder):
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ModelError(f"its tensor {name} has no name in GGUF", cure=_CURE)
        values = _arranged(name, tensor, config).contiguous()
        if values.ndim > 1 and values.dtype != torch.float32:
            exact = False
            raw = values.to(torch.bfloat16).view(torch.uint8).numpy()
            writer.add_tensor(there, raw, raw_dtype=brain)
        else:
            writer.add_tensor(there, values.float().numpy())
    return exact


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dict
                yield name, opened.get_tensor(name)


def _arranged(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Rows of queries and keys in llama.cpp's order of rotary positions."""
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config.get("num_key_value_heads") or config["num_attention_heads"],
    }.get(name.rsplit(".", 2)[-2])
    if not heads or not PERMUTED[config["model_type"]]:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
