"""A second bundle of the demo's base model: other weights, other users, and of the newer format."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from idiolect.base_model import identify
from idiolect.bundle import Bundle, write_bundle
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TrainedVotes
from idiolect_training.demo_model import demo_model

ADAPTER = "adapter/adapter_model.safetensors"
LAYOUT = Layout(placement="after_system", bos_id=1, opening="<|im_start|>user", folds_system=False, end_id=2)


def second_bundle(
    bundle: Bundle, path: Path, layout: Layout = LAYOUT, trained_votes: TrainedVotes | None = None
) -> Bundle:
    """The bundle with half of its LoRA, and each user with the code of another one."""

    def write_weights(folder: Path) -> None:
        tensors = load_file(bundle.path / ADAPTER)
        half = {name: np.asarray(each / 2 if ".lora_B." in name else each) for name, each in tensors.items()}
        save_file(half, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_bytes((bundle.path / "adapter" / "adapter_config.json").read_bytes())

    manifest = bundle.manifest
    assert manifest.weights.kind == "adapter"
    return write_bundle(
        path,
        base_model=identify(demo_model(), layout.format_version),
        layout=layout,
        user_model=bundle.user_model,
        user_ids=list(bundle.user_ids),
        codes=np.roll(bundle.codes, 1, axis=0),
        weights=manifest.weights,
        write_weights=write_weights,
        training={"second": True},
        bank=bundle.bank,
        cluster_names=manifest.cluster_names,
        decoding=manifest.decoding,
        trained_votes=trained_votes,
    )
