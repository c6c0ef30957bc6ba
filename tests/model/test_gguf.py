"""A GGUF file is a model like a folder, and a real one learns as it samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedgrpo.ground.errors import ModelError
from fedgrpo.grpo.rollout.divergence import k3
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.model.base import load_base, model_source
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import AdapterSettings, GRPOSettings, ModelSettings
from tests.models import stirred

SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2"
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def written(path: Path) -> Path:
    """A random Llama of one layer, as llama.cpp would read it."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([2, 3, 3, *[6] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "token_embd": (len(TOKENS), 16),
        "output": (len(TOKENS), 16),
        "output_norm": (16,),
        "blk.0.attn_norm": (16,),
        "blk.0.ffn_norm": (16,),
        "blk.0.attn_q": (16, 16),
        "blk.0.attn_k": (8, 16),
        "blk.0.attn_v": (8, 16),
        "blk.0.attn_output": (16, 16),
        "blk.0.ffn_gate": (32, 16),
        "blk.0.ffn_up": (32, 16),
        "blk.0.ffn_down": (16, 32),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=generator).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def mismatch(base_settings: ModelSettings, prompts: list[tuple[int, ...]]) -> float:
    """Mean k3 of the update from the sampler, under an adapter off its start."""
    adapter = stirred(Adapter(load_base(base_settings), AdapterSettings(kind="lora")), 0.02)
    policy = Policy(adapter, GRPOSettings(group_size=2, max_completion_length=6))
    rollout = policy.rollout(prompts, policy.sampling_plan())
    total = 0.0
    for batch in policy.pack(rollout, range(len(rollout.tokens))):
        old, mask = rollout.logps[batch.completions], rollout.mask[batch.completions]
        total += float((k3(old, policy.logps(rollout, batch).detach()) * mask).sum())
    return total / int(rollout.mask.sum())


def test_a_gguf_file_is_loaded_and_learns_as_it_samples(tmp_path: Path) -> None:
    path = written(tmp_path / "small.gguf")
    assert mismatch(ModelSettings(name=str(path), device="cpu"), [(5, 6, 7), (9,)]) < 1e-6


def test_a_gguf_file_that_was_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "small.gguf")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"small\.gguf"):
        load_base(ModelSettings(name=str(path), device="cpu"))


def test_another_file_and_one_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match="is a file, and no GGUF file"):
        model_source(str(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match="does not exist"):
        model_source(str(tmp_path / "other.gguf"))


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="make smollm2 fetches it")
def test_a_real_model_learns_as_it_samples() -> None:
    settings = ModelSettings(name=str(SMOLLM2), device="cpu")
    assert mismatch(settings, [(1, 9690, 198, 2683), (504, 2)]) < 1e-6
