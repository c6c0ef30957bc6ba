"""The frozen base model: any causal language model of the Hugging Face kind, or the tiny one that
is shipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.errors import ModelError
from fedgrpo.model.chat_style import PLAIN, ChatStyle
from fedgrpo.model.family.precision import quantised_loading
from fedgrpo.model.family.trial import settle_attention
from fedgrpo.model.kernels.attention import attends_everywhere, takes_any_mask
from fedgrpo.model.loading import load_model, load_tokenizer
from fedgrpo.model.source import GGUF
from fedgrpo.settings import GRPOSettings, ModelSettings

LOG = logging.getLogger(__name__)

TINY = Path(__file__).parent / "tiny"
"""Folder of the shipped base model, made by benchmarks/tiny_model.py."""


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
    chat:
        How chats are rendered for it.
    settings:
        By which it was found.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    eos_ids: tuple[int, ...]
    fingerprint: str
    chat: ChatStyle = PLAIN
    settings: ModelSettings = field(default_factory=ModelSettings)


def choose_device(wanted: str) -> torch.device:
    """Resolve ``auto``, and refuse a GPU that is not there.

    Raises
    ------
    ModelError
        If a GPU is asked for that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise ModelError(
            f"model.device = {wanted!r}, but {f'{seen} GPUs are' if seen else 'no GPU is'} visible "
            "here",
            cure="set model.device = 'auto'",
        )
    return device


def precision_advice(settings: ModelSettings) -> list[str]:
    """Say what half precision costs on a CPU, if that is what the settings ask for."""
    if settings.dtype == "float32" or choose_device(settings.device).type != "cpu":
        return []
    return [
        f"model.dtype = {settings.dtype!r} on a CPU: sampler and update round differently (0.002 "
        "nats a token, k3, in bfloat16 on a model of 135 M), and without instructions for it a "
        "step takes several times as long. Set model.dtype = 'float32' if memory allows: the "
        "weights stay the same."
    ]


def load_base(settings: ModelSettings, *, any_weights: bool = False, longest: int = 0) -> BaseModel:
    """Load model and tokenizer as the settings say.

    Adversary: see :mod:`fedgrpo.model.loading`.

    Parameters
    ----------
    settings:
        Name, revision, precision, bits and device.
    any_weights:
        Whether the site's own policy allows weights in other formats than safetensors.
    longest:
        Most tokens of prompt and completion together; 0 where it is not known. A model whose
        windows are wider attends quicker, and prompts can be kept apart in it.

    Raises
    ------
    ModelError
        If the name is no model folder and no Hub model that can be reached, the model brings code,
        is not whole, is not finite, has no end-of-sequence token, or fewer embeddings than its
        tokenizer has tokens.
    """
    source = model_source(settings.name)
    device = choose_device(settings.device)
    revision = settings.revision or "main"
    model = load_model(
        AutoModelForCausalLM,
        source,
        revision,
        any_weights=any_weights,
        dtype=getattr(torch, settings.dtype),
        **quantised_loading(settings, device),
    )
    tokenizer = load_tokenizer(source, revision, padding_side="left")
    _check_vocabulary(model, tokenizer, settings.name)
    model.requires_grad_(False).eval()
    if not settings.quantise:
        torch.nn.Module.to(model, device)
    settle_attention(model, longest)
    eos_ids = _end_tokens(model, tokenizer, settings.name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = eos_ids[0]
    found = _fingerprint(model)
    return BaseModel(model, tokenizer, device, eos_ids, found, settings=settings)


def model_source(name: str) -> str:
    """Folder, GGUF file or Hub name behind ``model.name``.

    Raises
    ------
    ModelError
        If the name looks like a path and there is no model in it, or is that of a file.
    """
    if name == "tiny":
        return str(TINY)
    folder = Path(name).expanduser()
    if folder.is_file() and folder.suffix != GGUF:
        raise ModelError(
            f"model.name = {name!r} is a file, and no GGUF file",
            cure="name the folder that holds it",
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(
            f"model.name = {name!r} has no config.json",
            cure="name the folder that save_pretrained made",
        )
    if not folder.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(
            f"model.name = {name!r} does not exist", cure="check the path, or give a Hub name"
        )
    return str(folder) if folder.exists() else name


def check_context(base: BaseModel, settings: GRPOSettings) -> None:
    """Hold the longest prompt with its completion against positions and windows that end.

    Positions that are trained one by one do; rotary and other computed ones go on, and are warned
    of.

    Raises
    ------
    ModelError
        If positions end before prompt and completion do, or the model was loaded for shorter rows.
    """
    model, longest = base.model, longest_row(settings)
    config = model.config.get_text_config(decoder=True)
    positions = getattr(config, "max_position_embeddings", longest)
    told = (
        f"grpo.max_prompt_length + grpo.max_completion_length = {longest} is more than the "
        f"{positions} positions of the model"
    )
    if longest > positions:
        if any(name.endswith(_LEARNED) for name, _ in model.named_modules()):
            raise ModelError(told, cure=f"lower them to {positions} together, or use another model")
        LOG.warning("%s: it may do worse beyond them", told, extra={"code": "model-odd"})
    if takes_any_mask(model) and not attends_everywhere(model, longest):
        raise ModelError(
            f"the model was loaded for rows of fewer tokens than grpo.max_prompt_length + "
            f"grpo.max_completion_length = {longest}, which its windows would cut",
            cure="load it with longest_row(settings), or lower them",
        )


def longest_row(settings: GRPOSettings) -> int:
    """Most tokens of a prompt and its completion together."""
    return settings.max_prompt_length + settings.max_completion_length


_LEARNED = ("wpe", "embed_positions", "position_embeddings", "position_embedding")
"""What modules with one trained vector for each position are called in transformers."""


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    """Refuse a tokenizer that makes tokens for which the model has no embedding."""
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    table = cast(torch.nn.Embedding, model.get_input_embeddings())
    rows = table.weight.shape[0]
    if tokens > rows:
        raise ModelError(
            f"model {name!r} has {rows} embeddings, its tokenizer {tokens} tokens",
            cure="use the tokenizer that belongs to the model, or resize_token_embeddings and "
            "train the new ones",
        )


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
