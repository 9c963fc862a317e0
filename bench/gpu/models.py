"""Models for checks whose replies need no sense: random or no weights, with the demo model's tokenizer."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANK = 8
TOKENIZER = ("tokenizer", "chat_template", "special_tokens")


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int = 49152

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_kv_heads,
            vocab_size=self.vocab_size,
            max_position_embeddings=8192,
            tie_word_embeddings=self.vocab_size == Shape.vocab_size,
            initializer_range=0.06,
            bos_token_id=1,
            eos_token_id=2,
            architectures=["LlamaForCausalLM"],
        )


TINY = Shape(64, 128, 2, 2, 1)
SMOL = Shape(576, 1536, 30, 9, 3)
"""SmolLM2-135M's."""
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256)


def write_shape(folder: Path, tokenizer_from: Path, shape: Shape = LLAMA_8B) -> Path:
    """A model in bfloat16 without weights (`--load-format dummy` makes some up), and an adapter that fits it."""
    config = shape.config()
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    _copy_tokenizer(tokenizer_from, folder)
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGET_MODULES, task_type="CAUSAL_LM")
    lora.base_model_name_or_path = "shape"
    lora.save_pretrained(adapter)
    kv_size = shape.hidden_size // shape.n_heads * shape.n_kv_heads
    sizes = {"q_proj": shape.hidden_size, "k_proj": kv_size, "v_proj": kv_size, "o_proj": shape.hidden_size}
    tensors = {}
    for layer in range(shape.n_layers):
        for module, size in sizes.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, shape.hidden_size) * 0.02
            tensors[f"{name}.lora_B.weight"] = torch.randn(size, RANK) * 0.02
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    return folder


def write_random(folder: Path, tokenizer_from: Path, shape: Shape) -> Path:
    """Random weights in float32."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        LlamaForCausalLM(shape.config()).to(torch.float32).save_pretrained(folder)
        _copy_tokenizer(tokenizer_from, folder)
    return folder


def write_adapter(folder: Path, model: Path) -> Path:
    """A LoRA of `model` that changes what it says, as a PEFT folder."""
    if not folder.is_dir():
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
