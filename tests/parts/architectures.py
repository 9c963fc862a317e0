"""Tiny random models of many architectures, their peculiarities set to values that matter."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

COMMON: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16}

PECULIARITIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, **MIXED},
    "qwen3": {"use_sliding_window": True, "head_dim": 8, **MIXED},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, **MIXED},
    "gemma3_text": {"head_dim": 8, "final_logit_softcapping": 5.0, **MIXED},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "granite": {
        "logits_scaling": 8.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.1,
    },
    "olmo": {"clip_qkv": 0.5},
    "olmo2": {},
    "cohere": {"logit_scale": 0.25, "use_qk_norm": True},
    "starcoder2": {"sliding_window": 8},
    "qwen3_moe": {"use_sliding_window": True, "sliding_window": 8, "head_dim": 8, **EXPERTS},
    "mixtral": {"sliding_window": 8, **EXPERTS},
}
"""transformers' model type -> what its config says beside COMMON: all that the trainer knows."""
SERVED_OTHERWISE: dict[str, dict[str, Any]] = {
    "cohere2": {"logit_scale": 0.25, **MIXED},
    "stablelm": {"use_parallel_residual": True, "partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_pct": 0.5},
}
"""The same of those that are refused, since vLLM computes them otherwise."""


def tiny(folder: Path, kind: str, tokenizer_from: Path, **changes: object) -> Path:
    """A model of transformers' type `kind` in `folder`, with the tokenizer of another."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**COMMON | (PECULIARITIES | SERVED_OTHERWISE).get(kind, {}) | changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in tokenizer_from.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "special_tokens")):
            shutil.copy(file, folder / file.name)
    return folder


def lora_targets(kind: str) -> tuple[str, ...]:
    """What the attention's input matrices are called there."""
    named = {"phi3": ("qkv_proj", "o_proj"), "phi": ("q_proj", "v_proj")}
    return named.get(kind, ("q_proj", "o_proj"))
