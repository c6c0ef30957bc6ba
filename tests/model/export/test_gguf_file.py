"""What is written as GGUF computes the same; what would not is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedgrpo.ground.errors import ModelError
from fedgrpo.model.export.gguf_file import check_known, save_gguf
from tests.model.export.tiny_llama import CHAT, write_model
from tests.models import tiny_base

KNOWN = {"model_type": "llama", "rope_parameters": {"rope_type": "default"}}


@pytest.mark.parametrize(
    ("kind", "split"), [("llama", "llama-bpe"), ("qwen2", "qwen2"), ("qwen3", "gpt-2")]
)
def test_transformers_reads_the_same_model_back(tmp_path: Path, kind: str, split: str) -> None:
    gguf = pytest.importorskip("gguf")
    folder = write_model(tmp_path / "model", kind, split)
    save_gguf(folder, tmp_path / "model.gguf")
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    first = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 90, 17, 260, 44, 8]])
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, first(ids).logits, atol=1e-4)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == split
    assert fields["tokenizer.chat_template"].contents() == CHAT
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 0
    text = "sort 31425, then the sum of 12 and 30"
    own, theirs = (
        AutoTokenizer.from_pretrained(folder),
        AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf"),
    )
    assert theirs(text)["input_ids"] == own(text)["input_ids"]


def test_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    save_gguf(write_model(tmp_path / "model", "llama", "qwen2", "bfloat16"), tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "BF16"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bloom"}, "'bloom'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"sliding_window": 8}, "sliding window"),
    ],
)
def test_what_would_answer_wrongly_is_refused(changes: dict[str, object], said: str) -> None:
    check_known(KNOWN)
    with pytest.raises(ModelError, match=said) as refused:
        check_known({**KNOWN, **changes})
    assert "convert_hf_to_gguf.py" in refused.value.cure


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    base = tiny_base()
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="WordLevel"):
        save_gguf(tmp_path, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()
