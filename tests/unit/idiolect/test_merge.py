"""A merged folder is used again as it was written, and merged anew after any change of it or of the base model."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.hostile.changes.sealing import reseal
from idiolect.base_model import identify
from idiolect.bundle import Bundle, write_bundle
from idiolect.errors import BaseModelMismatch, BundleCorrupt, BundleShapeMismatch
from idiolect.files.folder import ADAPTER_CONFIG, ADAPTER_TENSORS, MANIFEST
from idiolect.manifest import AdapterWeights
from idiolect.merge import check_fits, merge_bundle, read_merged
from idiolect_server.releases.prepare import Prepared, prepare
from idiolect_server.settings import Settings
from tests.parts.bundles import LAYOUT, small_bundle

WEIGHTS = "model/model.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj"
Change = Callable[[Path], object]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """As much of a model as is read without an engine."""
    folder = tmp_path / "base"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 6, "vocab_size": 50}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    for name in ("modeling_own.py", "pytorch_model.bin", "README.md", ".hidden.json", "of two words.json"):
        (folder / name).write_text("x")
    rng = np.random.default_rng(0)
    weights = {f"{Q_PROJ}.weight": (6, 6), "model.embed_tokens.weight": (50, 6)}
    save_file(
        {name: rng.normal(size=shape).astype(np.float16) for name, shape in weights.items()}, folder / WEIGHTS[6:]
    )
    return folder


@pytest.fixture
def bundle(base: Path, tmp_path: Path) -> Bundle:
    """Of that model."""
    like = small_bundle(tmp_path / "like")

    def write_weights(folder: Path) -> None:
        for name in (ADAPTER_CONFIG, ADAPTER_TENSORS):
            shutil.copy(like.path / name, folder)

    return write_bundle(
        tmp_path / "bundle",
        base_model=identify(base, 1),
        layout=LAYOUT,
        user_model=like.user_model,
        user_ids=like.user_ids,
        codes=like.codes,
        weights=AdapterWeights(rank=2, alpha=4, target_modules=("q_proj",)),
        write_weights=write_weights,
        training={},
    )


@pytest.fixture
def prepared(base: Path, bundle: Bundle, tmp_path: Path) -> Callable[[], Prepared]:
    settings = {"bundle": bundle.path, "model": str(base), "adapter": "merged", "cache_dir": tmp_path / "cache"}
    return lambda: prepare(Settings.model_validate(settings), lambda: True)


def write(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def linked(name: str) -> Change:
    def do(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return do


def another_link(folder: Path) -> None:
    shutil.move(folder, folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def auto_map(content: bytes) -> bytes:
    return json.dumps(json.loads(content) | {"auto_map": {"AutoModel": "modeling_evil.Evil"}}).encode()


UNSEALED: dict[str, Change] = {
    "a bit of the weights": write(WEIGHTS, lambda c: c[:-1] + bytes([c[-1] ^ 1])),
    "weights cut": write(WEIGHTS, lambda c: c[:-2]),
    "weights gone": lambda folder: (folder / WEIGHTS).unlink(),
    "weights linked": linked(WEIGHTS),
    "code in the config": write("model/config.json", auto_map),
    "another template": write("model/chat_template.jinja", lambda c: c + b"{# more #}"),
    "another tokenizer": write("model/tokenizer.json", lambda c: b'{"a": 1}'),
    "code": lambda folder: (folder / "model" / "modeling_evil.py").write_text("evil"),
    "a pickle": lambda folder: (folder / "model" / "pytorch_model.bin").write_text("evil"),
    "more weights": lambda folder: shutil.copy(folder / WEIGHTS, folder / "model" / "more.safetensors"),
    "the model linked": linked("model"),
    "a pipe": lambda folder: ((folder / WEIGHTS).unlink(), os.mkfifo(folder / WEIGHTS)),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": write(MANIFEST, lambda c: c[: len(c) // 2]),
    "other users": write("users.safetensors", lambda c: c[:-1] + b"\1"),
    "a link to itself": another_link,
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
    "a broken link": lambda folder: (shutil.rmtree(folder), folder.symlink_to("nowhere")),
    "nothing": shutil.rmtree,
}
SEALED = ("code in the config", "another template", "another tokenizer", "code", "a pickle", "weights cut", "a pipe")


@pytest.mark.parametrize("change", [*UNSEALED, *(f"{name}, sealed" for name in SEALED)])
def test_every_change_of_a_merged_folder_is_noticed(prepared: Callable[[], Prepared], change: str):
    """Merged anew: the same bytes as the first time, in a folder of its own."""
    model = Path(prepared().model)
    folder, expected = model.parent, contents(model)
    name, _, sealed = change.partition(", ")
    UNSEALED[name](folder)
    if sealed:
        reseal(folder)
    again = prepared()
    assert Path(again.model) == model
    assert not folder.is_symlink()
    assert contents(model) == expected
    assert sorted(file.name for file in folder.parent.iterdir() if file.name != "elsewhere") == [folder.name]
    again.loaded.check_unchanged()


def contents(folder: Path) -> dict[str, bytes]:
    assert not folder.is_symlink()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_merged_folder_that_nobody_touched_is_used_again(prepared: Callable[[], Prepared]):
    model = Path(prepared().model)
    inode = (model / "model.safetensors").stat().st_ino
    assert (Path(prepared().model) / "model.safetensors").stat().st_ino == inode


def test_neither_code_nor_pickles_of_the_base_model_are_merged(prepared: Callable[[], Prepared]):
    assert sorted(contents(Path(prepared().model))) == [
        *("README.md", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"),
    ]


def test_what_a_merge_is_of_must_be_the_bundle_and_the_base(bundle: Bundle, base: Path, tmp_path: Path):
    merge_bundle(bundle, base, tmp_path / "merged")
    assert read_merged(tmp_path / "merged", bundle, base) is not None
    (base / "chat_template.jinja").write_text("{{ other }}")
    assert read_merged(tmp_path / "merged", bundle, base) is None
    assert read_merged(bundle.path, bundle, base) is None


def test_what_is_swapped_while_the_engine_loads_is_noticed(prepared: Callable[[], Prepared]):
    found = prepared()
    weights = Path(found.model) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\0")
    weights.write_bytes(content)
    with pytest.raises(BundleCorrupt, match="changed while it was being loaded"):
        found.loaded.check_unchanged()


def test_a_sum_that_is_not_finite_is_not_merged(bundle: Bundle, base: Path, tmp_path: Path):
    """Each for itself is a number of float16."""
    weights = {name: each * 0 + np.float16(65500) for name, each in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors")
    other = rebased(bundle, base, 40.0)
    with pytest.raises(BundleCorrupt, match="not finite with the adapter added"):
        merge_bundle(other, base, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_width_is_refused_live_and_merged(bundle: Bundle, base: Path, tmp_path: Path):
    check_fits(bundle, base)
    weights = load_file(base / "model.safetensors")
    weights[f"{Q_PROJ}.weight"] = np.zeros((6, 8), np.float16)
    save_file(weights, base / "model.safetensors")
    other = rebased(bundle, base)
    for refuses in (lambda: check_fits(other, base), lambda: merge_bundle(other, base, tmp_path / "merged")):
        with pytest.raises(BundleShapeMismatch, match=r"adapter is .*6, 6.*, base model is \[6, 8\]"):
            refuses()


def test_a_base_model_of_another_width_is_not_the_bundles(bundle: Bundle, base: Path, tmp_path: Path):
    """A bundle whose manifest is of one width throughout, and names the fingerprint of a model of another."""
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": 8}))
    with pytest.raises(BaseModelMismatch, match="hidden_size 6, base has 8"):
        merge_bundle(bundle, base, tmp_path / "merged")


def rebased(bundle: Bundle, base: Path, scale: float = 1.0) -> Bundle:
    """The bundle as if it were of another base model, its lora_B times `scale`."""
    adapter = load_file(bundle.path / ADAPTER_TENSORS)
    save_file(
        {n: each * np.float32(scale if "lora_B" in n else 1) for n, each in adapter.items()},
        bundle.path / ADAPTER_TENSORS,
    )
    values = json.loads((bundle.path / MANIFEST).read_text())
    values["base_model"]["fingerprint"] = identify(base, 1).fingerprint
    (bundle.path / MANIFEST).write_text(json.dumps(values))
    reseal(bundle.path)
    return Bundle.read(bundle.path)
