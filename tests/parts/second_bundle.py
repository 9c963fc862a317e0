"""A second bundle of a base model, the demo's for one: other weights, other users, and of the newer format."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from idiolect.base_model import identify
from idiolect.bundle import Bundle, write_bundle
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TrainedVotes
from idiolect.user_model import Array
from idiolect_training.demo_model import demo_model

ADAPTER = "adapter/adapter_model.safetensors"
LAYOUT = Layout(placement="after_system", bos_id=1, opening="<|im_start|>user", folds_system=False, end_id=2)


def second_bundle(
    bundle: Bundle,
    path: Path,
    layout: Layout = LAYOUT,
    trained_votes: TrainedVotes | None = None,
    model: Path | None = None,
) -> Bundle:
    """The bundle with half of its LoRA, and each user with the code of another one."""
    return changed(bundle, path, layout, np.roll(bundle.codes, 1, axis=0), bundle.user_ids, 0.5, trained_votes, model)


def changed(
    bundle: Bundle,
    path: Path,
    layout: Layout,
    codes: Array,
    user_ids: Sequence[str],
    lora_times: float,
    trained_votes: TrainedVotes | None = None,
    model: Path | None = None,
) -> Bundle:
    """The bundle with other users, and with its LoRA times a number."""

    def write_weights(folder: Path) -> None:
        tensors = load_file(bundle.path / ADAPTER)
        scaled = {name: np.asarray(each * lora_times if ".lora_B." in name else each) for name, each in tensors.items()}
        save_file(scaled, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_bytes((bundle.path / "adapter" / "adapter_config.json").read_bytes())

    manifest = bundle.manifest
    assert manifest.weights.kind == "adapter"
    return write_bundle(
        path,
        base_model=identify(model or demo_model(), layout.format_version),
        layout=layout,
        user_model=bundle.user_model,
        user_ids=list(user_ids),
        codes=codes,
        weights=manifest.weights,
        write_weights=write_weights,
        training={"second": True},
        bank=bundle.bank,
        cluster_names=manifest.cluster_names,
        decoding=manifest.decoding,
        trained_votes=trained_votes,
    )
