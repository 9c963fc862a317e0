"""Where base models are found, in words where they are not; and which copies of one may serve its bundles."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from idiolect.base_model import DEMO, DEMO_NAME, accept, identify, locate
from idiolect.bundle import Bundle
from idiolect.errors import BaseModelMismatch, BundleMissing, ModelMissing
from idiolect.merge import merge_bundle
from idiolect_server.errors import SettingsError
from idiolect_server.releases.prepare import Prepared, prepare
from idiolect_server.settings import Settings
from tests.parts.tiny import tiny_model


def test_the_demo_model_has_its_place_in_the_cache_and_a_folder_is_itself(tmp_path: Path):
    assert locate(DEMO, tmp_path) == tmp_path / "models" / DEMO_NAME
    assert locate(str(tmp_path), tmp_path / "cache") == tmp_path


def test_an_id_is_fetched_at_its_revision_without_other_forms_of_the_weights(monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def fetch(name: str, **more: Any) -> str:
        asked.update(more, name=name)
        return "/models/snapshot"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("org/name@v1.2", Path("cache")) == Path("/models/snapshot")
    assert (asked["name"], asked["revision"]) == ("org/name", "v1.2")
    assert {"original/*", "consolidated*"} <= set(asked["ignore_patterns"])
    locate("org/name", Path("cache"))
    assert asked["revision"] is None


@pytest.mark.parametrize("model", ["no/such/folder", "one word"])
def test_what_is_no_model_is_said_in_one_line(model: str):
    with pytest.raises(ModelMissing, match=r"no folder, and not to be had from Hugging Face: .+"):
        locate(model, Path("cache"))


def test_a_machine_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **more: Any) -> str:
        raise LocalEntryNotFoundError("outgoing traffic is disabled\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelMissing, match=r"outgoing traffic is disabled$"):
        locate("org/name", Path("cache"))


@pytest.fixture(scope="module")
def copies(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the demo model: its shape in bfloat16, and a model of another shape."""
    folder = tmp_path_factory.mktemp("copies")
    shutil.copytree(model_path, folder / "bf16", ignore=shutil.ignore_patterns("*.safetensors"))
    for shard in model_path.glob("*.safetensors"):
        weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(shard).items()}
        save_file(weights, folder / "bf16" / shard.name, {"format": "pt"})
    return {"bf16": folder / "bf16", "tiny": tiny_model(folder / "tiny", model_path)}


@pytest.fixture
def bundle(demo_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle.path, tmp_path / "bundle"))


def prepared(bundle: Path, model: Path, cache: Path, adapter: str = "auto", merged_here: bool = True) -> Prepared:
    settings = Settings.model_validate({"bundle": bundle, "model": str(model), "adapter": adapter, "cache_dir": cache})
    return prepare(settings, lambda: merged_here)


def test_a_copy_of_the_base_model_serves_once_it_is_accepted(bundle: Path, copies: dict[str, Path], tmp_path: Path):
    before = Bundle.read(bundle)
    with pytest.raises(BaseModelMismatch, match="this model is bf16") as refused:
        prepared(bundle, copies["bf16"], tmp_path)
    assert "idiolect bundle accept" in refused.value.hint
    for _ in range(2):  # once is enough, twice does no harm
        assert accept(bundle, copies["bf16"], "org/bf16").fingerprint == identify(copies["bf16"], 1).fingerprint
    after = Bundle.read(bundle)
    assert after.bundle_id == before.bundle_id
    assert [copy.name for copy in after.manifest.also_serves or ()] == ["org/bf16"]
    assert sorted(file.name for file in bundle.parent.iterdir()) == ["bundle"]
    assert prepared(bundle, copies["bf16"], tmp_path / "cache", merged_here=False).model == str(copies["bf16"])


@pytest.mark.slow
def test_what_is_merged_into_a_copy_is_not_taken_for_what_is_merged_into_the_base(
    bundle: Path, copies: dict[str, Path], model_path: Path, tmp_path: Path
):
    accept(bundle, copies["bf16"], "org/bf16")
    folders = {name: Path(prepared(bundle, model, tmp_path / "cache").model) for name, model in
               {"base": model_path, "copy": copies["bf16"]}.items()}  # fmt: skip
    dtypes = {
        name: next(iter(load_file(folder / "model.safetensors").values())).dtype for name, folder in folders.items()
    }
    assert dtypes == {"base": torch.float32, "copy": torch.bfloat16}


def test_another_model_is_no_copy(bundle: Path, copies: dict[str, Path], demo_bundle: Bundle):
    with pytest.raises(BaseModelMismatch, match="its hidden_size is 16, not 576"):
        accept(bundle, copies["tiny"], "tiny")
    assert Bundle.read(bundle).manifest == demo_bundle.manifest


def test_nothing_is_merged_into_quantized_weights(bundle: Path, copies: dict[str, Path], tmp_path: Path):
    quantized = Path(shutil.copytree(copies["bf16"], tmp_path / "quantized"))
    config = json.loads((quantized / "config.json").read_text())
    (quantized / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    accept(bundle, quantized, "org/quantized")
    assert prepared(bundle, quantized, tmp_path / "cache").adapter is not None
    with pytest.raises(SettingsError, match="no adapter can be merged"):
        prepared(bundle, quantized, tmp_path / "cache", adapter="merged")


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"architectures": [], "hidden_size": 1, "vocab_size": 1}'])
def test_a_config_that_is_none_is_said(tmp_path: Path, config: str):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BundleMissing, match=r"config\.json: not the config of a language model"):
        identify(tmp_path)


@pytest.mark.slow
def test_a_bundle_that_carries_its_model_needs_no_copy(bundle: Path, model_path: Path, tmp_path: Path):
    merge_bundle(Bundle.read(bundle), model_path, tmp_path / "merged")
    with pytest.raises(BaseModelMismatch, match="carries its own merged model"):
        accept(tmp_path / "merged", model_path, "demo")
