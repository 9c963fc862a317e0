"""python -m bench.gpu.memory: what fits on GPUs of 80 GB, by arithmetic; docs/deploy.md has the table."""

import sys
from dataclasses import dataclass

GIB = 2**30
GPU_GIB = 79.6
"""What an H100 of 80 GB reports."""
SHARE = 0.92
"""Of it, what vLLM takes unless IDIOLECT_GPU_MEMORY says otherwise."""
OWN_GIB = 2.0
"""CUDA's own and CUDA graphs, beside the weights; vLLM's profiling finds the true number at start."""


@dataclass(frozen=True)
class Model:
    """As its config.json has it."""

    name: str
    n_parameters: float
    n_layers: int
    n_kv_heads: int
    head_dim: int

    def weights_gib(self) -> float:
        """In bfloat16."""
        return 2 * self.n_parameters / GIB

    def kv_bytes(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * 2 * self.n_layers * self.n_kv_heads * self.head_dim

    def tokens(self, n_gpus: int) -> int:
        """How many tokens of all requests together can be in flight; 0 when the weights do not fit."""
        left_gib = n_gpus * (GPU_GIB * SHARE - OWN_GIB) - self.weights_gib()
        return max(0, int(left_gib * GIB / self.kv_bytes()))


MODELS = (
    Model("Llama 3.2 1B", 1.24e9, 16, 8, 64),
    Model("Llama 3.1 8B", 8.03e9, 32, 8, 128),
    Model("Qwen2.5 14B", 14.77e9, 48, 8, 128),
    Model("Qwen2.5 32B", 32.76e9, 64, 8, 128),
    Model("Llama 3.3 70B", 70.55e9, 80, 8, 128),
)


def table() -> str:
    """Markdown."""
    rows = ["| base model | weights | a token's keys and values | tokens in flight on one GPU | on two |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for model in MODELS:
        flights = " | ".join(
            f"{tokens // 1000:,},000" if (tokens := model.tokens(n)) else "does not fit" for n in (1, 2)
        )
        rows.append(f"| {model.name} | {model.weights_gib():.0f} GiB | {model.kv_bytes() // 1024} KiB | {flights} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
