"""Small bundles for tests."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from idiolect.bank import Bank, Question
from idiolect.bundle import Bundle, write_bundle
from idiolect.errors import BundleError
from idiolect.manifest import AdapterWeights, BaseModelIdentity, Decoding, MergedWeights
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TrainedVotes
from idiolect.user_model import UserModel
from idiolect.votes import Likelihood

BASE = BaseModelIdentity(
    name="tiny", architecture="LlamaForCausalLM", hidden_size=6, vocab_size=50, fingerprint="a" * 64
)
N_QUESTIONS = 40
LAYOUT = Layout(placement="after_system", anchor=(1, 9), bos_id=1)


def small_bundle(
    path: Path,
    *,
    seed: int = 0,
    kind: str = "cluster",
    user_ids: Sequence[str] = ("ada", "böb", "c/d"),
    cluster_names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    trained_votes: TrainedVotes | None = None,
    bank: Bank | None = None,
    merged: bool = False,
) -> Bundle:
    rng = np.random.default_rng(seed)
    if kind == "cluster":
        basis = rng.normal(size=(4, 2, 6)).astype(np.float32)
        codes = rng.dirichlet(np.ones(4), size=len(user_ids)).astype(np.float32)
        model = UserModel("cluster", basis, np.full(4, 0.25, np.float32))
    elif kind == "low_rank":
        basis = rng.normal(size=(4, 2, 6)).astype(np.float32)
        codes = rng.normal(size=(len(user_ids), 3)).astype(np.float32)
        model = UserModel("low_rank", basis, np.zeros(3, np.float32))
    else:
        basis = rng.normal(size=(2, 6)).astype(np.float32)
        codes = rng.normal(size=(len(user_ids), 12)).astype(np.float32)
        model = UserModel("individual", basis, np.zeros(12, np.float32))

    def write_model(folder: Path) -> None:
        config = {"architectures": [BASE.architecture], "hidden_size": 6, "vocab_size": 50}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text("{}")
        save_file({"embed": rng.normal(size=(50, 6)).astype(np.float16)}, folder / "model.safetensors")

    def write_adapter(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}))
        layer = "base_model.model.model.layers.0.self_attn.q_proj"
        shapes = {f"{layer}.lora_A.weight": (2, 6), f"{layer}.lora_B.weight": (6, 2)}
        pair = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        save_file(pair, folder / "adapter_model.safetensors")

    return write_bundle(
        path,
        base_model=BASE,
        layout=LAYOUT,
        user_model=model,
        user_ids=list(user_ids),
        codes=codes,
        weights=MergedWeights() if merged else AdapterWeights(rank=2, alpha=4, target_modules=("q_proj",)),
        write_weights=write_model if merged else write_adapter,
        training={"seed": seed},
        cluster_names=cluster_names,
        decoding=decoding,
        trained_votes=trained_votes,
        bank=bank,
    )


def refused_flips(path: Path) -> int:
    """Flip one byte of a copy at seven places in each file; count the errors, which must name the file."""
    refused = 0
    for name in sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
        size = (path / name).stat().st_size
        for position in (0, *(size * part // 6 for part in range(1, 6)), size - 2):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "bundle"
                shutil.copytree(path, copy)
                content = bytearray((copy / name).read_bytes())
                content[position] ^= 1
                (copy / name).write_bytes(content)
                with pytest.raises(BundleError) as caught:
                    Bundle.read(copy)
            assert name.split("/")[-1] in caught.value.message
            refused += 1
    return refused


def with_bank(bundle: Bundle) -> Bundle:
    """The bundle with a bank, in memory."""
    return replace(bundle, bank=small_bank())


def small_bank() -> Bank:
    """For four clusters: question n tells cluster n % 4 from the others."""
    questions = tuple(
        Question(messages=({"role": "user", "content": f"q{n}"},), first="a", second="b") for n in range(N_QUESTIONS)
    )
    slopes = 3 * np.eye(4)[np.arange(N_QUESTIONS) % 4] - 1
    return Bank(
        questions=questions,
        slopes=slopes,
        offsets=np.zeros(N_QUESTIONS),
        origin=np.zeros(4),
        directions=np.eye(4),
        mean=np.full(4, 0.25),
        covariance=np.eye(4) * 0.1,
        likelihood=Likelihood(1.0, 0.1),
    )
