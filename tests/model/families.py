"""Tiny random models of the families that people use, from transformers' own configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

from fedgrpo.model.base import TINY

VOCABULARY = 55
"""Tokens, as many as the shipped tokenizer has or more."""

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    # Larger than usual, so that tokens differ in how likely they are, and faults show.
    "initializer_range": 0.2,
}
_WINDOW = {"sliding_window": 6}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SHARED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_DELTA = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 16}

_GEMMA4 = {"final_logit_softcapping": 3.0, "vocab_size_per_layer_input": VOCABULARY}

_Family = tuple[str, str, Mapping[str, Any]]

DENSE: Mapping[str, _Family] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "llama4_text": (
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        {
            "num_local_experts": 4,
            "intermediate_size_mlp": 64,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 8,
        },
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "mistral": ("MistralConfig", "MistralForCausalLM", _WINDOW),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**_WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3_text": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**_WINDOW, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    ),
    "gemma4_text": ("Gemma4TextConfig", "Gemma4ForCausalLM", _GEMMA4),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", {}),
    "olmo3": ("Olmo3Config", "Olmo3ForCausalLM", _WINDOW),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM", {}),
    "granite": ("GraniteConfig", "GraniteForCausalLM", {"logits_scaling": 4.0}),
    "cohere2": ("Cohere2Config", "Cohere2ForCausalLM", {**_WINDOW, "logit_scale": 0.25}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_positions": 256}),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {}),
    "bloom": ("BloomConfig", "BloomForCausalLM", {}),
}
HYBRID: Mapping[str, _Family] = {
    "qwen3_5_text": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM", _DELTA),
    "lfm2": ("Lfm2Config", "Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention"]}),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        {
            **_MAMBA,
            "mamba_d_head": 16,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 32,
        },
    ),
    "falcon_h1": (
        "FalconH1Config",
        "FalconH1ForCausalLM",
        {**_MAMBA, "mamba_d_ssm": 32, "mamba_d_head": 8},
    ),
    "mamba": ("MambaConfig", "MambaForCausalLM", {"state_size": 8}),
    "mamba2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    ),
}
EXPERTS: Mapping[str, _Family] = {
    "qwen2_moe": (
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        {**_EXPERTS, "shared_expert_intermediate_size": 16},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", _EXPERTS),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {"num_local_experts": 4}),
    "olmoe": ("OlmoeConfig", "OlmoeForCausalLM", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": ("DeepseekV3Config", "DeepseekV3ForCausalLM", {**_SHARED, **_LATENT}),
    "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM", _SHARED),
    "gpt_oss": ("GptOssConfig", "GptOssForCausalLM", {**_WINDOW, "num_local_experts": 4}),
}
FAMILIES = {**DENSE, **HYBRID, **EXPERTS}


def family(name: str, **changed: object) -> PreTrainedModel:
    """A model of a family, with random weights that are always the same."""
    config, model, special = FAMILIES[name]
    return _made(getattr(hf, model), getattr(hf, config)(**(_COMMON | dict(special) | changed)))


def multimodal() -> PreTrainedModel:
    """Text with a vision tower beside it, which prompts of text never reach."""
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = hf.Gemma3Config(
        text_config=_COMMON | _WINDOW | {"query_pre_attn_scalar": 8},
        vision_config=tower,
        mm_tokens_per_image=4,
        image_token_index=VOCABULARY - 1,
        boi_token_index=VOCABULARY - 2,
        eoi_token_index=VOCABULARY - 3,
    )
    return _made(hf.Gemma3ForConditionalGeneration, config)


def _made(kind: Callable[[Any], PreTrainedModel], config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


def saved(model: PreTrainedModel, folder: Path) -> str:
    """Write a model with the shipped tokenizer; returns the folder's name."""
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return str(folder)
