"""Add a bundle's LoRA to its base model's weights: W + (alpha / r) B A. Both sides may need it; neither needs torch.

A merged bundle serves at the base model's speed (on a CPU an adapter halves it) and takes the base model's space.
"""

import mmap
import shutil
from collections import defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from idiolect.base_model import check_base_model
from idiolect.bundle import Bundle, write_bundle
from idiolect.errors import BundleShapeMismatch
from idiolect.fingerprint import read_header
from idiolect.manifest import AdapterWeights, MergedWeights

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
PREFIX = "base_model.model."


def merge_bundle(bundle: Bundle, base: Path, out: Path) -> Bundle:
    """Write to `out` the bundle with its adapter merged into the model in `base`.

    Raises BaseModelMismatch when `base` is another model, BundleShapeMismatch when the adapter does not fit it.
    """
    check_base_model(bundle.manifest, base)
    weights = bundle.manifest.weights
    assert isinstance(weights, AdapterWeights)
    assert bundle.adapter_path is not None
    adapter = load_file(bundle.adapter_path / "adapter_model.safetensors")
    scale = np.float32(weights.alpha / weights.rank)

    def write(folder: Path) -> None:
        for file in base.iterdir():
            if file.is_file() and not file.name.startswith("."):
                shutil.copyfile(file, folder / file.name)
        merged = sum(_merge_shard(shard, adapter, scale) for shard in sorted(folder.glob("*.safetensors")))
        if merged * 2 != len(adapter):
            raise BundleShapeMismatch(f"the adapter has {len(adapter)} matrices, {merged} pairs fit the base model")

    return write_bundle(
        out,
        base_model=bundle.manifest.base_model,
        layout=bundle.manifest.layout,
        user_model=bundle.user_model,
        user_ids=bundle.user_ids,
        codes=bundle.codes,
        weights=MergedWeights(),
        write_weights=write,
        training=bundle.manifest.training,
        bank=bundle.bank,
        cluster_names=bundle.manifest.cluster_names,
        decoding=bundle.manifest.decoding,
        trained_votes=bundle.trained_votes,
    )


def _merge_shard(shard: Path, adapter: dict[str, np.ndarray], scale: np.float32) -> int:
    """Overwrite the adapted matrices of one safetensors file in place; how many there were."""
    pairs: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, matrix in adapter.items():
        module, _, which = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        pairs[f"{module}.weight"][which] = matrix.astype(np.float32)
    with shard.open("r+b") as file:
        header, data = read_header(file)
        here = sorted(set(pairs) & set(header))
        with mmap.mmap(file.fileno(), 0) as view:
            for name in here:
                entry = header[name]
                begin, end = (data + offset for offset in entry["data_offsets"])
                weight = np.frombuffer(view[begin:end], DTYPES[str(entry["dtype"])])
                delta = scale * (pairs[name]["lora_B"] @ pairs[name]["lora_A"])
                if list(delta.shape) != entry["shape"]:
                    raise BundleShapeMismatch(f"{name}: adapter is {delta.shape}, base model is {entry['shape']}")
                merged = (weight.astype(np.float32) + delta.ravel()).astype(weight.dtype)
                view[begin:end] = merged.tobytes()
    return len(here)
