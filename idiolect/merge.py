"""Add a bundle's LoRA to its base model's weights: W + (alpha / r) B A. Both sides may need it; neither needs torch.

A merged bundle serves at the base model's speed (on a CPU an adapter halves it) and takes the base model's space.
"""

import mmap
import shutil
from collections import defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np

from idiolect.base_model import check_base_model
from idiolect.bundle import Bundle, write_bundle
from idiolect.errors import BundleCorrupt, BundleError, BundleShapeMismatch
from idiolect.files.folder import MODEL, digest, is_known
from idiolect.files.tensors import Tensors
from idiolect.fingerprint import read_header
from idiolect.manifest import AdapterWeights, MergedWeights

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
PREFIX = "base_model.model."


def merge_bundle(bundle: Bundle, base: Path, out: Path) -> Bundle:
    """Write to `out` the bundle with its adapter merged into the model in `base`.

    Raises BaseModelMismatch when `base` is another model, BundleShapeMismatch when the adapter does not fit it,
    BundleCorrupt when a sum is not finite.
    """
    check_base_model(bundle.manifest, base)
    weights = bundle.manifest.weights
    assert isinstance(weights, AdapterWeights)
    adapter = bundle.adapter()
    scale = np.float32(weights.alpha / weights.rank)

    def write(folder: Path) -> None:
        for file in _copied(base):
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


def read_merged(folder: Path, bundle: Bundle, base: Path) -> Bundle | None:
    """What `merge_bundle` has written to `folder`; None when it is not there or not as it was written.

    For the numbers in the weights the digests of the folder's own manifest are taken; every other file of the model
    must be the base model's.
    """
    try:
        merged = Bundle.read(folder)
    except BundleError:
        return None
    files, ours = merged.manifest.files, merged.manifest
    others = {name: files[name] for name in merged.files.names(MODEL) if not name.endswith(".safetensors")}
    expected = {f"{MODEL}/{file.name}": digest(file) for file in _copied(base) if file.suffix != ".safetensors"}
    same = others == expected and ours.weights.kind == "merged" and ours.base_model == bundle.manifest.base_model
    return merged if same and not folder.is_symlink() else None


def check_fits(bundle: Bundle, base: Path) -> None:
    """Raises BundleShapeMismatch when a matrix of the adapter has another shape than that of the base model.

    Matrices that the base model has in another form (such as quantized) are left to the engine.
    """
    adapter, shapes = bundle.adapter(), dict[str, list[int]]()
    for shard in base.glob("*.safetensors"):
        with shard.open("rb") as file:
            shapes |= {name: entry["shape"] for name, entry in read_header(file)[0].items() if entry["dtype"] in DTYPES}
    for name, a in adapter.items():
        if ".lora_A." in name:
            b = adapter[name.replace(".lora_A.", ".lora_B.")]
            module = name.removeprefix(PREFIX).replace(".lora_A.", ".")
            found = [b.shape[0], a.shape[1]]
            if shapes.get(module, found) != found:
                raise BundleShapeMismatch(f"{module}: adapter is {found}, base model is {shapes[module]}")


def _copied(base: Path) -> list[Path]:
    """What is merged of a model folder: no code, nothing to unpickle."""
    return [file for file in sorted(base.iterdir()) if file.is_file() and is_known(f"{MODEL}/{file.name}")]


def _merge_shard(shard: Path, adapter: Tensors, scale: np.float32) -> int:
    """Overwrite the adapted matrices of one safetensors file in place; how many there were."""
    pairs: dict[str, Tensors] = defaultdict(dict)
    for name, matrix in adapter.items():
        module, _, which = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        pairs[f"{module}.weight"][which] = matrix.astype(np.float32)
    with shard.open("r+b") as file:
        header, data = read_header(file)
        here = sorted(set(pairs) & set(header))
        with mmap.mmap(file.fileno(), 0) as view:
            for name in here:
                entry = header[name]
                if entry["dtype"] not in DTYPES:
                    raise BundleShapeMismatch(f"{name}: no adapter can be added to numbers of type {entry['dtype']}")
                begin, end = (data + offset for offset in entry["data_offsets"])
                weight = np.frombuffer(view[begin:end], DTYPES[str(entry["dtype"])])
                delta = scale * (pairs[name]["lora_B"] @ pairs[name]["lora_A"])
                if list(delta.shape) != entry["shape"]:
                    raise BundleShapeMismatch(f"{name}: adapter is {delta.shape}, base model is {entry['shape']}")
                with np.errstate(over="ignore"):
                    merged = (weight.astype(np.float32) + delta.ravel()).astype(weight.dtype)
                if not np.isfinite(merged).all():
                    raise BundleCorrupt(f"{name}: not finite with the adapter added")
                view[begin:end] = merged.tobytes()
    return len(here)
