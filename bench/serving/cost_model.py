"""make cost-model: what a request and a user cost, computed from the shapes of model and user model.

Prints the table of docs/cost.md; nothing is measured here. Two settings: the demo model on two cores with a million
users, and a model of Llama 3.1 8B's shape in bf16 on one H100 with 100 million.
"""

import sys
from dataclasses import dataclass

H100_BF16_FLOPS = 989e12
"""Dense, peak (NVIDIA H100 SXM data sheet)."""
GPU_UTILIZATION = 0.4
"""Of the peak in prefill; assumed."""


@dataclass(frozen=True)
class Setting:
    """A base model, its precision, and its users."""

    name: str
    n_parameters: float
    n_layers: int
    n_kv_heads: int
    head_size: int
    hidden_size: int
    n_bytes: int  # of one number
    n_users: int
    n_user_tokens: int = 4
    n_clusters: int = 16

    @property
    def wire_bytes(self) -> int:
        """User tokens of a request, from the server's process to vLLM's engine, whatever the prompt's length."""
        return self.n_user_tokens * self.hidden_size * self.n_bytes

    def wire_bytes_of_whole_prompt(self, n_prompt: int) -> int:
        """The same when the whole prompt is sent as embeddings."""
        return (self.n_user_tokens + n_prompt) * self.hidden_size * self.n_bytes

    @property
    def cluster_code_bytes(self) -> int:
        """Of Redis, a user: weights as f16; what Redis needs for key and index is measured, not computed."""
        return 2 * self.n_clusters

    @property
    def individual_code_bytes(self) -> int:
        return 4 * self.n_user_tokens * self.hidden_size

    @property
    def user_flops(self) -> float:
        """Of a request: the user tokens' share of the prefill, two for each parameter, and the code's expansion."""
        expansion = 2 * self.n_clusters * self.n_user_tokens * self.hidden_size
        return 2 * self.n_parameters * self.n_user_tokens + expansion

    def prompt_flops(self, n_tokens: int) -> float:
        return 2 * self.n_parameters * n_tokens

    @property
    def kv_bytes_a_token(self) -> int:
        return 2 * self.n_layers * self.n_kv_heads * self.head_size * self.n_bytes


DEMO = Setting("SmolLM2-135M, f32, 10⁶ users", 134.5e6, 30, 3, 64, 576, 4, 1_000_000)
LARGE = Setting("8B, bf16, one H100, 10⁸ users", 8.03e9, 32, 8, 128, 4096, 2, 100_000_000)
N_SYSTEM, N_HISTORY, IN_FLIGHT = 1000, 500, 64


def scaled(n: float, unit: str) -> str:
    """1536 B as 1.54 kB."""
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= factor:
            return f"{n / factor:.3g} {prefix}{unit}"
    return f"{n:.3g} {unit}"


def rows(setting: Setting) -> list[tuple[str, str]]:
    """What it is, and how much."""
    tokens, kv = setting.n_user_tokens, setting.kv_bytes_a_token
    gpu_s = setting.user_flops / (H100_BF16_FLOPS * GPU_UTILIZATION)
    return [
        ("**a request** to the engine, user tokens", scaled(setting.wire_bytes, "B")),
        ("... whole prompt of 1,900 tokens as embeddings", scaled(setting.wire_bytes_of_whole_prompt(1900), "B")),
        ("FLOPs of the user", scaled(setting.user_flops, "FLOP")),
        (f"FLOPs of a history of {N_HISTORY} tokens instead", scaled(setting.prompt_flops(N_HISTORY), "FLOP")),
        ("GPU time of the user", f"{1e6 * gpu_s:.0f} µs" if setting is LARGE else ""),
        ("KV of the user tokens", scaled(tokens * kv, "B")),
        (f"KV of a history of {N_HISTORY} tokens instead", scaled(N_HISTORY * kv, "B")),
        (
            f"KV of a system prompt of {N_SYSTEM} tokens, {IN_FLIGHT} users in flight, user tokens after it",
            scaled((N_SYSTEM + IN_FLIGHT * tokens) * kv, "B"),
        ),
        ("... user tokens first", scaled(IN_FLIGHT * (N_SYSTEM + tokens) * kv, "B")),
        ("**a user** of 16 clusters: code", scaled(setting.cluster_code_bytes, "B")),
        ("... all users", scaled(setting.cluster_code_bytes * setting.n_users, "B")),
        ("an individual user: code", scaled(setting.individual_code_bytes, "B")),
        ("... all users", scaled(setting.individual_code_bytes * setting.n_users, "B")),
        ("one LoRA per user (rank 8, attention): a user", scaled(_lora_bytes(setting), "B")),
        ("... all users", scaled(_lora_bytes(setting) * setting.n_users, "B")),
    ]


def _lora_bytes(setting: Setting) -> float:
    """Of q, k, v and o in every layer."""
    hidden, kv = setting.hidden_size, setting.n_kv_heads * setting.head_size
    return setting.n_bytes * setting.n_layers * 8 * (2 * (hidden + hidden) + 2 * (hidden + kv))


def main() -> None:
    sys.stdout.write(f"| computed | {DEMO.name} | {LARGE.name} |\n| --- | --- | --- |\n")
    for (name, small), (_, large) in zip(rows(DEMO), rows(LARGE), strict=True):
        sys.stdout.write(f"| {name} | {small} | {large} |\n")


if __name__ == "__main__":
    main()
