"""Where is the base model, and which is it? A fingerprint of its folder, cheap enough for every start."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from idiolect.errors import BaseModelMismatch, BundleMissing, ModelMissing
from idiolect.files.document import brief
from idiolect.files.folder import MANIFEST
from idiolect.fingerprint import fingerprint, read_header
from idiolect.manifest import AcceptedCopy, BaseModelIdentity, Manifest

SAMPLE_BYTES = 4096
CACHE_DIR = Path.home() / ".cache" / "idiolect"
"""Converted and merged models, unless IDIOLECT_CACHE_DIR says otherwise."""
DEMO, DEMO_NAME = "demo", "SmolLM2-135M-Instruct"
FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]
"""Of a Hugging Face repository."""
IGNORED = ["original/*", "consolidated*"]
"""The same weights in other forms."""


def locate(model: str, cache_dir: Path) -> Path:
    """The folder of a base model: `demo`, a local folder, or a Hugging Face id, with @REVISION if need be.

    The demo model's folder may not exist yet. What Hugging Face has is fetched once. Raises ModelMissing.
    """
    if model == DEMO:
        return cache_dir / "models" / DEMO_NAME
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=FETCHED, ignore_patterns=IGNORED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelMissing(f"{model}: no folder, and not to be had from Hugging Face: {reason}") from error


def identify(path: Path, format_version: int = 2, cache_dir: Path | None = None) -> BaseModelIdentity:
    """The identity of the model in a folder, as bundles of that format state it. Raises BundleMissing.

    `cache_dir` keeps what was read of the weights, so that they are read once. Format 1 knew the headers of the weights
    and the first 4 KiB of each alone.
    """
    config_file = path / "config.json"
    if not config_file.is_file() or not any(path.glob("*.safetensors")):
        raise BundleMissing(f"{path}: not a model folder (config.json and *.safetensors)")
    try:
        config = json.loads(config_file.read_text())
        known = {"architecture": config["architectures"][0]}
        known |= {name: config[name] for name in ("hidden_size", "vocab_size")}
    except (ValueError, LookupError, TypeError) as error:
        raise BundleMissing(f"{config_file}: not the config of a language model: {brief(repr(error))}") from error
    read = _sampled(path) if format_version == 1 else fingerprint(path, cache_dir)
    return BaseModelIdentity(name=path.name, fingerprint=read, **known)


def check_base_model(manifest: Manifest, path: Path, cache_dir: Path | None = None) -> BaseModelIdentity:
    """The identity of the model in a folder, which must be the bundle's or a copy that the bundle names.

    Raises BaseModelMismatch, BundleMissing.
    """
    expected, found = manifest.base_model, identify(path, manifest.format_version, cache_dir)
    copies = {copy.fingerprint for copy in manifest.also_serves or ()}
    if found.fingerprint not in {expected.fingerprint, *copies}:
        raise BaseModelMismatch(
            f"the bundle was trained on {expected.name} ({expected.fingerprint[:12]}), "
            f"this model is {found.name} ({found.fingerprint[:12]})",
            hint="serve the base model that the bundle names, with its tokenizer and chat template; accept a copy with "
            "`idiolect bundle accept`, or train a bundle for this one",
        )
    for what in ("hidden_size", "vocab_size"):
        if getattr(found, what) != getattr(expected, what):
            ours, theirs = getattr(expected, what), getattr(found, what)
            raise BaseModelMismatch(f"the bundle was trained on a model with {what} {ours}, {found.name} has {theirs}")
    return found


def accept(bundle: Path, model: Path, name: str) -> AcceptedCopy:
    """Name a copy of the base model (another type, quantized) in the bundle's manifest, so that it may serve it.

    The bundle keeps its id: it is the same users and weights. Raises BundleError and BaseModelMismatch.
    """
    manifest = Manifest.read(bundle)
    found = identify(model, manifest.format_version)
    expected = manifest.base_model
    if manifest.weights.kind == "merged":
        raise BaseModelMismatch(f"{bundle}: carries its own merged model, no copy of {expected.name} can serve it")
    for what in ("architecture", "hidden_size", "vocab_size"):
        ours, theirs = getattr(expected, what), getattr(found, what)
        if ours != theirs:
            raise BaseModelMismatch(f"{model}: no copy of {expected.name}: its {what} is {theirs}, not {ours}")
    copy = AcceptedCopy(name=name, fingerprint=found.fingerprint)
    others = [each for each in manifest.also_serves or () if each.fingerprint != copy.fingerprint]
    changed = manifest.model_copy(update={"also_serves": (*others, copy)})
    with tempfile.TemporaryDirectory(dir=bundle.parent) as folder:
        changed.write(Path(folder))
        (Path(folder) / MANIFEST).replace(bundle / MANIFEST)
    return copy


def is_quantized(path: Path) -> bool:
    """Whether the weights in a model folder are quantized: no adapter can be added to them."""
    return "quantization_config" in json.loads((path / "config.json").read_text())


def _sampled(path: Path) -> str:
    digest = hashlib.sha256()
    for sample in sorted(sample for shard in path.glob("*.safetensors") for sample in _samples(shard)):
        digest.update(sample)
    return digest.hexdigest()


def _samples(shard: Path) -> Iterator[bytes]:
    """One record a tensor: its name, type and shape, and the start of its data. Independent of the sharding."""
    with shard.open("rb") as file:
        header, data = read_header(file)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(data + begin)
            described = json.dumps([name, entry["dtype"], entry["shape"]]).encode()
            yield described + file.read(min(SAMPLE_BYTES, end - begin))
