"""An adapter added to its base for good, as a folder that every reader of transformers' models
takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.errors import AdapterError, RunError
from fedgrpo.model.export.card import CARD, CHAT_TEMPLATE


def save_merged(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, adapter: Path, folder: Path
) -> None:
    """Write base and adapter as one model, in the base's own precision, with its tokenizer.

    Parameters
    ----------
    model, tokenizer:
        The base with a new adapter on it, which this changes.
    adapter:
        Folder of the trained one. Its card goes along, and its chat template in the base's place.
    folder:
        Must be empty, or not exist.

    Raises
    ------
    RunError
        If it is neither.
    AdapterError
        If the trained one's weights cannot be read.
    """
    check_empty(folder)
    merged = merged_with(model, adapter)
    template = adapter / CHAT_TEMPLATE
    if template.is_file():
        tokenizer.chat_template = template.read_text("utf-8")
    merged.config._name_or_path = ""  # It names a folder of this machine.
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(_merged_card((adapter / CARD).read_text("utf-8")), "utf-8")


def merged_with(model: PeftModel, adapter: Path) -> PreTrainedModel:
    """Add the adapter in a folder to the base under ``model``, a new one of its form, for good;
    raises AdapterError if its weights cannot be read.
    """
    set_peft_model_state_dict(model, _weights(adapter / SAFETENSORS_WEIGHTS_NAME))
    # PEFT types what an adapter of any kind offers too loosely for a checker.
    return cast(PreTrainedModel, cast(Any, model).merge_and_unload())


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{file} cannot be read ({type(error).__name__})",
            cure="bring it back from a copy, or begin the run anew",
        ) from None


def check_empty(folder: Path) -> None:
    """Refuse to write over anything; raises RunError if the folder holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty", cure="name a folder that does not exist")


def _merged_card(card: str) -> str:
    """The adapter's card, as that of a whole model."""
    front, _, text = card.partition("\n---\n")
    front = front.replace("library_name: peft", "library_name: transformers")
    kept = text.partition("## Use")[0].replace("# Adapter trained", "# Model trained")
    use = "The adapter is merged into its base: load this folder with `AutoModelForCausalLM`.\n"
    return f"{front}\n---\n{kept}## Use\n\n{use}"
