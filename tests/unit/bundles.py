"""Small bundles for tests."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from idiolect.bundle import Bundle, write_bundle
from idiolect.layout import Layout
from idiolect.manifest import AdapterWeights, BaseModelIdentity
from idiolect.user_model import UserModel

BASE = BaseModelIdentity(
    name="tiny", architecture="LlamaForCausalLM", hidden_size=6, vocab_size=50, fingerprint="a" * 64
)
LAYOUT = Layout(placement="after_system", anchor=(1, 9), bos_id=1)


def small_bundle(path: Path, *, seed: int = 0, kind: str = "cluster", user_ids=("ada", "böb", "c/d")) -> Bundle:
    rng = np.random.default_rng(seed)
    if kind == "cluster":
        basis = rng.normal(size=(4, 2, 6)).astype(np.float32)
        codes = rng.dirichlet(np.ones(4), size=len(user_ids)).astype(np.float32)
        model = UserModel("cluster", basis, np.full(4, 0.25, np.float32))
    else:
        basis = rng.normal(size=(2, 6)).astype(np.float32)
        codes = rng.normal(size=(len(user_ids), 12)).astype(np.float32)
        model = UserModel("individual", basis, np.zeros(12, np.float32))

    def write_adapter(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}))
        save_file({"lora_A": rng.normal(size=(2, 6)).astype(np.float32)}, folder / "adapter_model.safetensors")

    return write_bundle(
        path,
        base_model=BASE,
        layout=LAYOUT,
        user_model=model,
        user_ids=list(user_ids),
        codes=codes,
        weights=AdapterWeights(rank=2, alpha=4, target_modules=("q_proj",)),
        write_weights=write_adapter,
        training={"seed": seed},
    )
