"""What a folder or Hub repository of a model may hold, and why one cannot be loaded.

Adversary: see :mod:`fedgrpo.model.loading`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file

from fedgrpo.ground.errors import ModelError

CONFIGURATIONS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Files in which a model can name code of its own."""

_CODE = ("auto_map", "configuration_files")
"""Keys by which a model brings code, or a configuration that nobody has looked at."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
"""Weights in formats of which one or another reader runs code."""

CONVERT = (
    "convert them on a machine that you can lose: load the model there and call "
    "save_pretrained(folder, safe_serialization=True)"
)


TOKENIZER = "tokenizer.json"
GGUF = ".gguf"
"""How a file is named that holds configuration, tokenizer and weights: data alone."""


def located(source: str, revision: str) -> tuple[str, dict[str, str]]:
    """Folder or Hub name of a model, and what transformers is to be told besides.

    A GGUF file is named by its folder and its name there.
    """
    path = Path(source)
    if path.suffix == GGUF and path.is_file():
        return str(path.parent), {"gguf_file": path.name}
    return source, {"revision": revision}


def check_source(source: str, revision: str) -> None:
    """Refuse a model that brings code, or sends the loader to another one.

    Parameters
    ----------
    source:
        Folder, GGUF file or Hub name. Of the file's folder the loader may read more.
    revision:
        Of a Hub name.

    Raises
    ------
    ModelError
        Names the file. Nobody is asked whether to run anything.
    """
    source = located(source, revision)[0]
    for name in CONFIGURATIONS:
        path = _find(source, name, revision)
        if path is not None and (key := _code_in(path)):
            raise ModelError(
                f"model {source!r} brings code of its own: {name} has {key}",
                cure=f"use a model of a type that transformers knows, without {key}; code of a "
                "model is never run",
            )
    if _find(source, "adapter_config.json", revision) is not None:
        raise ModelError(
            f"model {source!r} is an adapter, or holds one: adapter_config.json names its base",
            cure="merge it into its base (merge_and_unload) and name the folder that "
            "save_pretrained then makes",
        )


def check_weights(source: str) -> None:
    """Refuse a folder whose weights are in a format that can hold code, and in no other.

    Raises
    ------
    ModelError
        Names one of the files.
    """
    folder = Path(source)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"model {source!r} has its weights in {pickles[0]}, a format that can hold code, and "
            "none as safetensors",
            cure=CONVERT + "; or let the site's own policy say any_weights = true",
        )


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn whatever loading raises into a ModelError with its cause, which quotes no prompt."""
    try:
        yield
    except Exception as error:
        if damaged := _damaged(source):
            raise ModelError(
                f"model {source!r}: {damaged} is incomplete or damaged",
                cure="fetch or copy that file again, whole",
            ) from error
        raise ModelError(
            f"model {source!r} cannot be loaded: {_cause(error)}", cure=_cure(error)
        ) from error


def _find(source: str, name: str, revision: str) -> Path | None:
    """A file of a model, or None where there is none; a Hub that cannot be reached is an error at
    the first file.
    """
    if (folder := Path(source)).is_dir():
        return folder / name if (folder / name).is_file() else None
    with explained(source):
        found = cached_file(
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=name == CONFIGURATIONS[0],
        )
    return None if found is None else Path(found)


def _code_in(path: Path) -> str:
    """The first key in a file by which transformers would find code; empty if there is none."""
    try:
        tree = json.loads(path.read_bytes())
        code = next(_code_keys(tree), "")
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is no JSON: {type(error).__name__}", cure="fetch or copy that file again"
        ) from None
    if not isinstance(tree, Mapping):
        raise ModelError(
            f"{path} is no JSON object but a {type(tree).__name__}",
            cure="fetch or copy that file again",
        )
    return code


def _code_keys(tree: object) -> Iterator[str]:
    """Keys that name code, anywhere in a tree: a part's configuration has its own.

    ``auto_map`` names a model's own files, ``configuration_files`` other configurations, which
    transformers reads in the place of this one, and ``attn_implementation`` (or that of experts)
    with a slash a kernel on the Hub, which transformers fetches and imports.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            kernel = key.endswith("_implementation") and "/" in json.dumps(value)
            if key in _CODE or kernel:
                yield key
    if isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _code_keys(value)


def _damaged(source: str) -> str:
    """Name of the first file, of weights or the tokenizer's, that cannot be opened; empty if there
    is none.
    """
    folder = Path(source)
    if folder.suffix == GGUF and folder.is_file():
        with folder.open("rb") as file:
            return "" if file.read(4) == b"GGUF" else folder.name
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError):
            return path.name
    return TOKENIZER if (folder / TOKENIZER).is_file() and not _is_json(folder / TOKENIZER) else ""


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), Mapping)
    except (OSError, ValueError, RecursionError):
        return False


def _cause(error: Exception) -> str:
    """Class and beginning of what a library says: about a model, which is public."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:240]}" if text else type(error).__name__


def _cure(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "install what it names, or use a model without it"
    if isinstance(error, OSError):
        return (
            "give a folder with config.json, weights as safetensors and tokenizer, or a Hub name "
            "that this machine can reach"
        )
    return (
        "use a model of a type that the installed transformers knows, as save_pretrained wrote it"
    )
