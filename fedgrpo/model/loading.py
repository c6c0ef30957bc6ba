"""Reading models that somebody else made: none of their code runs, and no weight is made up.

Adversary: whoever made the folder or the Hub repository that the settings name, which a server
chooses among those that a site allows. Refused are models that bring code (``auto_map``, or a
kernel of the Hub that computes attention), weights in formats that can hold code (pickles), folders
that send the loader elsewhere (an adapter's, which names its base), and checkpoints from which
something is missing or in which something is not finite.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.errors import ModelError
from fedgrpo.model.quiet import only_errors
from fedgrpo.model.source import check_source, check_weights, explained, located

LOG = logging.getLogger(__name__)


def load_model(
    kind: Any,
    source: str,
    revision: str,
    *,
    any_weights: bool = False,
    new_head: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Load a model whose every weight is in its checkpoint, and finite.

    Parameters
    ----------
    kind:
        One of transformers' automatic classes.
    source, revision:
        As for :func:`fedgrpo.model.source.check_source`, which is called.
    any_weights:
        Whether weights may be in other formats than safetensors. Even then a pickle is read as
        data only.
    new_head:
        Whether what is not in the base model may be made anew, by torch's generator.
    options:
        For transformers.

    Raises
    ------
    ModelError
        Says what does not fit.
    """
    check_source(source, revision)
    if not any_weights:
        check_weights(source)
    place, told = located(source, revision)
    with explained(source), only_errors():
        model, found = kind.from_pretrained(
            place,
            **told,
            trust_remote_code=False,
            use_safetensors=None if any_weights else True,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # They are refused below, by their names.
            **options,
        )
    shapes = {f"{name} {tuple(theirs)}" for name, theirs, _ in found["mismatched_keys"]}
    _refuse_parameters(source, "have another shape in its checkpoint than in the model", shapes)
    base = f"{model.base_model_prefix}."
    missing = {name for name in found["missing_keys"] if not new_head or name.startswith(base)}
    _refuse_parameters(source, "are not in its checkpoint", missing)
    _refuse_parameters(source, "are not finite in its checkpoint", set(_not_finite(model)))
    if unexpected := found["unexpected_keys"]:
        few, code = _few(unexpected), {"code": "model-odd"}
        LOG.warning("model %r: no place for %s of its checkpoint", source, few, extra=code)
    loaded: PreTrainedModel = model
    return loaded


def load_tokenizer(source: str, revision: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer; raises ModelError."""
    check_source(source, revision)
    place, told = located(source, revision)
    with explained(source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            place, **told, trust_remote_code=False, **options
        )
    return tokenizer


def _not_finite(model: PreTrainedModel) -> Iterator[str]:
    for name, tensor in model.named_parameters():
        # Quantised weights are whole numbers, or too small for torch to ask.
        if tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.isfinite().all():
            yield name


def _refuse_parameters(source: str, what: str, names: Collection[str]) -> None:
    if names:
        raise ModelError(
            f"model {source!r}: parameters {what}: {_few(names)}",
            cure="fetch or copy the model again; it must be whole, of the type that its "
            "config.json names",
        )


def _few(names: Collection[str]) -> str:
    """The first five, and how many more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(sorted(names)[:5]) + more
