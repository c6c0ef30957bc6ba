"""The frozen base model: any causal language model of the Hugging Face kind, or the tiny one that
is shipped.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fedgrpo.errors import ModelError
from fedgrpo.model.packed_attention import use_packed_attention
from fedgrpo.settings import ModelSettings

TINY = Path(__file__).parent / "tiny"
"""Folder of the shipped base model, made by fedgrpo/model/pretrain.py."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model.

    Attributes
    ----------
    model:
        Frozen, in evaluation mode, on ``device``.
    tokenizer:
        With a padding token; its end-of-sequence ids are ``eos_ids``.
    eos_ids:
        Every token that ends a completion (a model may have several).
    fingerprint:
        SHA-256 (hex) of the parameters' names, shapes and a sample of their values: tells base
        models apart.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    eos_ids: tuple[int, ...]
    fingerprint: str


def choose_device(wanted: str) -> torch.device:
    """Resolve ``auto``, and refuse a GPU that is not there.

    Raises
    ------
    ModelError
        If ``cuda`` is asked for and not available.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "model.device = 'cuda', but no GPU is visible here", cure="set model.device = 'auto'"
        )
    return torch.device(wanted)


def load_base(settings: ModelSettings) -> BaseModel:
    """Load model and tokenizer as the settings say.

    Raises
    ------
    ModelError
        If the name is no model folder and no Hub model that can be reached, or has no
        end-of-sequence token.
    """
    source = model_source(settings.name)
    device = choose_device(settings.device)
    revision = settings.revision or "main"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=getattr(torch, settings.dtype)
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, padding_side="left")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model.name = {settings.name!r} (revision {revision!r}) cannot be loaded: "
            f"{type(error).__name__}",
            cure="give a folder with config.json, weights and tokenizer, or a Hub name that this "
            "machine can reach",
        ) from error
    model.requires_grad_(False).eval().to(device)
    use_packed_attention(model)
    eos_ids = _end_tokens(model, tokenizer, settings.name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = eos_ids[0]
    return BaseModel(model, tokenizer, device, eos_ids, _fingerprint(model))


def model_source(name: str) -> str:
    """Folder or Hub name behind ``model.name``.

    Raises
    ------
    ModelError
        If the name looks like a path and there is no model in it.
    """
    if name == "tiny":
        return str(TINY)
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(
            f"model.name = {name!r} has no config.json",
            cure="name the folder that save_pretrained made",
        )
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(
            f"model.name = {name!r} does not exist", cure="check the path, or give a Hub name"
        )
    return str(folder) if folder.is_dir() else name


def _end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
) -> tuple[int, ...]:
    """Union of the tokenizer's and the generation settings' end tokens: models disagree with
    themselves.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    several = configured if isinstance(configured, list) else [configured]
    ids = {token for token in [tokenizer.eos_token_id, *several] if token is not None}
    if not ids:
        raise ModelError(
            f"model {name!r} has no end-of-sequence token", cure="set eos_token in its tokenizer"
        )
    return tuple(sorted(ids))


def _fingerprint(model: PreTrainedModel) -> str:
    """Hash names, shapes and the first values of every parameter, in bfloat16 so that precision
    does not matter.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        head = parameter.detach().flatten()[:64].to(torch.bfloat16).float().cpu()
        digest.update(json.dumps([name, list(parameter.shape)]).encode())
        digest.update(head.numpy().tobytes())
    return digest.hexdigest()
