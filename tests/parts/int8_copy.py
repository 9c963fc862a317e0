"""A copy of a model with 8-bit weights, in the form of compressed-tensors (W8A8, as llm-compressor writes it)."""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LINEAR = re.compile(r"\.layers\.\d+\..*_proj\.weight$")
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**INT8, "strategy": "token", "dynamic": True},
        }
    },
}


def write_int8_copy(model: Path, out: Path) -> Path:
    """Each row of a linear layer's weights is rounded to integers of 8 bits, with a scale of its own."""
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(model.glob("*.safetensors")):
        for name, weight in load_file(shard).items():
            if not LINEAR.search(name):
                tensors[name] = weight.to(torch.bfloat16)
                continue
            scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
            tensors[name] = (weight.float() / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale.to(torch.bfloat16)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16", "quantization_config": CONFIG}))
    return out
