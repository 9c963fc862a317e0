"""Models for checks whose replies need no sense: random or no weights, with the demo model's tokenizer."""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANK = 8
TOKENIZER = ("tokenizer", "chat_template", "special_tokens")


def write_shape(folder: Path, tokenizer_from: Path) -> Path:
    """The shape of Llama 3.1 8B, without weights (vLLM makes some up by `load_format="dummy"`), and of an adapter."""
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    _copy_tokenizer(tokenizer_from, folder)
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"r": RANK, "target_modules": TARGET_MODULES}))
    return folder


def write_random(folder: Path, tokenizer_from: Path, hidden_size: int, n_layers: int, n_heads: int) -> Path:
    """A Llama of that shape with random weights in float32: exactness does not need sense."""
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    tokenizer_config = json.loads((tokenizer_from / "config.json").read_text())
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=1,
        vocab_size=tokenizer_config["vocab_size"],
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=tokenizer_config["bos_token_id"],
        eos_token_id=tokenizer_config["eos_token_id"],
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    _copy_tokenizer(tokenizer_from, folder)
    return folder


def write_adapter(folder: Path, model: Path) -> Path:
    """A LoRA of `model` that changes what it says, as a PEFT folder."""
    if folder.is_dir():
        return folder
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGET_MODULES, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, lora)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    adapted.save_pretrained(folder)
    return folder


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name.startswith(TOKENIZER):
            shutil.copy(file, target / file.name)
