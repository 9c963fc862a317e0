"""Can this LoRA be put on this base model, and served? Asked of a model without weights, in a second or so."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from idiolect_training.config import LoraConfig
from idiolect_training.errors import BadRunConfig


def check_lora(lora: LoraConfig, config: Any) -> None:
    """Raises BadRunConfig, which names what is wrong and what there is, for modules that no LoRA can be put on.

    `config` is transformers' config of the base model. A name means every linear layer whose path is it or ends in it,
    as in PEFT. A tied head is refused: its matrix is the embedding's, which the adapter would not change.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    tied = set()
    if config.tie_word_embeddings:
        shared = model.get_input_embeddings(), model.get_output_embeddings()
        tied = {name for name, module in model.named_modules() if module in shared}
    wrong = []
    for target in lora.target_modules:
        if _matching(target, tied):
            wrong.append(f"{target} is tied to the embedding")
        elif not _matching(target, linear):
            wrong.append(f"{target} is no linear layer of {config.architectures[0]}")
    if wrong:
        known = sorted({name.rpartition(".")[2] for name in set(linear) - tied})
        raise BadRunConfig(f"lora.target_modules: {', '.join(wrong)}", hint=f"there are {', '.join(known)}")


def _matching(target: str, names: list[str] | set[str]) -> list[str]:
    return [name for name in names if name == target or name.endswith(f".{target}")]
