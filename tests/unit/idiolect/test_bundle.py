"""The bundle format: what is written is read, and everything else is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load_file, save_file

from idiolect.bundle import Bundle
from idiolect.errors import (
    BundleCorrupt,
    BundleFormatUnsupported,
    BundleMissing,
    BundleShapeMismatch,
)
from idiolect.manifest import Decoding, Manifest
from idiolect.text import UserId
from tests.live import DEMO_BUNDLE
from tests.parts.bundles import refused_flips, small_bundle


def is_user_id(text: str) -> bool:
    try:
        return bool(TypeAdapter(UserId).validate_python(text))
    except ValidationError:
        return False


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_round_trip(tmp_path: Path, kind: str):
    written = small_bundle(tmp_path / "b", kind=kind)
    read = Bundle.read(tmp_path / "b")
    assert read.manifest == written.manifest
    assert list(read.user_ids) == ["ada", "böb", "c/d"]
    np.testing.assert_array_equal(read.codes, written.codes)
    np.testing.assert_array_equal(read.user_model.basis, written.user_model.basis)
    assert read.adapter_path == tmp_path / "b" / "adapter"
    assert read.model_path is None


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8).filter(is_user_id), max_size=6, unique=True))
def test_any_user_ids_survive(tmp_path: Path, user_ids: list[str]):
    assert list(small_bundle(tmp_path / "b", user_ids=user_ids).user_ids) == user_ids


def test_the_id_tells_contents_apart_and_nothing_else(tmp_path: Path):
    one, same, other = (small_bundle(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.bundle_id == same.bundle_id != other.bundle_id


def test_names_of_clusters_change_no_reply(tmp_path: Path):
    plain = small_bundle(tmp_path / "plain")
    named = small_bundle(tmp_path / "named", cluster_names=("a", "b", "c", "d"))
    assert named.manifest.cluster_names == ("a", "b", "c", "d")
    assert plain.manifest.cluster_names is None
    assert named.bundle_id == plain.bundle_id
    assert named.manifest.digest != plain.manifest.digest
    for wrong in (("a", "b"), ("a", "b", "c", "c"), ("a", "b", "c", "d", "d")):
        with pytest.raises(ValueError, match="cluster_names"):
            small_bundle(tmp_path / "wrong", cluster_names=wrong)


def test_decoding_changes_replies_and_so_the_bundle(tmp_path: Path):
    plain, drawn, more = (
        small_bundle(tmp_path / str(penalty), decoding=penalty and Decoding(frequency_penalty=penalty))
        for penalty in (None, 0.3, 0.4)
    )
    assert plain.manifest.decoding is None
    assert drawn.manifest.decoding == Decoding(frequency_penalty=0.3)
    assert len({plain.bundle_id, drawn.bundle_id, more.bundle_id}) == 3
    with pytest.raises(ValidationError):
        Decoding(frequency_penalty=2.1)


def test_a_flipped_byte_in_any_file_is_named():
    """Every file of the demo bundle, at seven places from its first byte to its last but one."""
    assert refused_flips(DEMO_BUNDLE) == 7 * 7


def test_missing_extra_and_linked_files_are_named(bundle: Bundle, tmp_path: Path):
    extra = bundle.path / "adapter" / "pickle.bin"
    extra.write_bytes(b"x")
    with pytest.raises(BundleCorrupt, match=r"adapter/pickle\.bin"):
        Bundle.read(bundle.path)
    extra.unlink()
    users = bundle.path / "users.safetensors"
    shutil.move(users, tmp_path / "elsewhere")
    with pytest.raises(BundleMissing, match=r"users\.safetensors"):
        Bundle.read(bundle.path)
    users.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleCorrupt, match=r"users\.safetensors"):
        Bundle.read(bundle.path)


def test_no_bundle_and_unfinished_bundle(bundle: Bundle, tmp_path: Path):
    with pytest.raises(BundleMissing):
        Bundle.read(tmp_path / "nowhere")
    (bundle.path / "manifest.json").unlink()
    with pytest.raises(BundleMissing, match=r"manifest\.json"):
        Bundle.read(bundle.path)


def rewrite(bundle: Bundle, **changes: object) -> None:
    """A manifest with changed fields and a matching id: what a writer with other ideas would make."""
    file = bundle.path / "manifest.json"
    values = json.loads(file.read_text()) | changes
    values.pop("bundle_id", None)
    values.pop("digest", None)
    try:
        manifest = Manifest.model_validate_json(json.dumps(values))
        values |= {"bundle_id": manifest.bundle_id, "digest": manifest.digest}
    except ValueError:
        values |= {"bundle_id": "0" * 16, "digest": "0" * 64}
    file.write_text(json.dumps(values))


def test_a_newer_format_is_told_from_a_broken_one(bundle: Bundle):
    rewrite(bundle, format_version=3)
    with pytest.raises(BundleFormatUnsupported, match="format version 3, this reader knows 1, 2"):
        Manifest.read(bundle.path)
    rewrite(bundle, format_version="x")
    with pytest.raises(BundleCorrupt):
        Manifest.read(bundle.path)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"format_version": 1}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_manifests_that_are_none(bundle: Bundle, text: str | bytes):
    (bundle.path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        Manifest.read(bundle.path)


def test_unknown_manifest_fields_are_refused(bundle: Bundle):
    rewrite(bundle, surprise=1)
    with pytest.raises(BundleCorrupt, match="surprise"):
        Manifest.read(bundle.path)


def resave(bundle: Bundle, name: str, **changes: np.ndarray) -> None:
    """A tensor file with other tensors and a manifest whose digests fit: only the content checks can notice."""
    import hashlib

    file = bundle.path / name
    save_file({**load_file(file), **changes}, file)
    listed = json.loads((bundle.path / "manifest.json").read_text())["files"]
    content = file.read_bytes()
    listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "n_bytes": len(content)}
    rewrite(bundle, files=listed)


def test_well_formed_files_with_wrong_content(tmp_path: Path):
    def fresh() -> Bundle:
        return small_bundle(tmp_path / "b")

    bundle = fresh()
    resave(bundle, "basis.safetensors", basis=np.zeros((4, 2, 7), np.float32))
    with pytest.raises(BundleShapeMismatch, match="basis"):
        Bundle.read(bundle.path)
    bundle = fresh()
    resave(bundle, "basis.safetensors", more=np.zeros(1, np.float32))
    with pytest.raises(BundleShapeMismatch, match="more"):
        Bundle.read(bundle.path)
    bundle = fresh()
    resave(bundle, "users.safetensors", codes=bundle.codes.astype(np.float64))
    with pytest.raises(BundleShapeMismatch, match="F64"):
        Bundle.read(bundle.path)
    bundle = fresh()
    resave(bundle, "users.safetensors", codes=bundle.codes * np.float32(np.nan))
    with pytest.raises(BundleCorrupt, match="finite"):
        Bundle.read(bundle.path)
    bundle = fresh()
    resave(bundle, "users.safetensors", codes=bundle.codes * np.float32(2))
    with pytest.raises(BundleCorrupt, match="sum to 1"):
        Bundle.read(bundle.path)
    bundle = fresh()
    resave(bundle, "users.safetensors", id_offsets=np.array([0, 3, 3, 10], np.int64))
    with pytest.raises(BundleCorrupt, match="id_offsets"):
        Bundle.read(bundle.path)


def test_a_failed_write_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """A crash after the tensors and before the manifest."""
    before = bundle.bundle_id

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("idiolect.bundle.digest", crash)
    with pytest.raises(KeyboardInterrupt):
        small_bundle(bundle.path, seed=7)
    monkeypatch.undo()
    assert Bundle.read(bundle.path).bundle_id == before
    assert [entry.name for entry in bundle.path.parent.iterdir()] == [bundle.path.name]


def test_writing_replaces(bundle: Bundle):
    other = small_bundle(bundle.path, seed=3)
    assert Bundle.read(bundle.path).bundle_id == other.bundle_id != bundle.bundle_id


def test_no_path_of_the_training_machine_is_in_the_demo_bundle():
    for name in ("manifest.json", "adapter/adapter_config.json"):
        assert "/home" not in (text := (DEMO_BUNDLE / name).read_text())
        assert "/root" not in text
