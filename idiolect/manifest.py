"""What a bundle says of itself: `manifest.json`, the only file that is read before anything is checked."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from idiolect.errors import BundleCorrupt, BundleFormatUnsupported, BundleMissing
from idiolect.prompt.layout import Layout
from idiolect.user_model import Kind

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
FORMAT_VERSIONS = (1, 2)
"""1: user tokens go before an anchor, in token ids. 2: before what opens a user turn; the end of a reply is stated."""
OPTIONAL = ("bank", "cluster_names", "decoding", "also_serves")

ClusterName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelIdentity(_Strict):
    """The model that the bundle was trained on. `fingerprint` is what is compared; the rest is for people."""

    name: str
    architecture: str
    hidden_size: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    fingerprint: Digest


class AcceptedCopy(_Strict):
    """Another form of the base model, such as a quantized one, that somebody has decided may serve the bundle."""

    name: str
    fingerprint: Digest


class UserModelShape(_Strict):
    kind: Kind
    n_user_tokens: int = Field(ge=1, le=64)
    hidden_size: int = Field(ge=1)
    code_size: int = Field(ge=1)
    n_users: int = Field(ge=0)


class AdapterWeights(_Strict):
    """The LoRA as a PEFT folder `adapter/`, to be served beside or merged into the base model."""

    kind: Literal["adapter"] = "adapter"
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    target_modules: tuple[str, ...] = Field(min_length=1)


class MergedWeights(_Strict):
    """The whole model, LoRA already added to its weights, as a Hugging Face folder `model/`."""

    kind: Literal["merged"] = "merged"


class BankShape(_Strict):
    """The question bank: `bank.jsonl` and `bank.safetensors`."""

    n_questions: int = Field(ge=1)
    n_coordinates: int = Field(ge=1)


class Decoding(_Strict):
    """How replies are drawn under the bundle where a request does not say otherwise: as they were measured."""

    frequency_penalty: float = Field(default=0.0, ge=0, le=2)
    """Subtracted from a token's logit for each time that the reply has it already (as in OpenAI's API)."""


class FileDigest(_Strict):
    sha256: Digest
    n_bytes: int = Field(ge=0)


class Manifest(_Strict):
    """docs/bundle-format.md says what each field MUST hold."""

    format_version: Literal[1, 2]
    created: str
    base_model: BaseModelIdentity
    user_model: UserModelShape
    layout: Layout
    weights: Annotated[AdapterWeights | MergedWeights, Field(discriminator="kind")]
    bank: BankShape | None = None
    cluster_names: tuple[ClusterName, ...] | None = None
    """What people call each of the K clusters; of cluster models only."""
    decoding: Decoding | None = None
    also_serves: tuple[AcceptedCopy, ...] | None = None
    """Copies of the base model that may serve the bundle although their bytes differ."""
    training: dict[str, Any]
    files: dict[FileName, FileDigest]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.format_version != self.layout.format_version:
            raise ValueError("layout: of another format than the manifest")
        names = self.cluster_names
        n_clusters = self.user_model.code_size if self.user_model.kind == "cluster" else 0
        if names is not None and not len(names) == len(set(names)) == n_clusters:
            raise ValueError("cluster_names: want one distinct name for each cluster of a cluster model")
        return self

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest alone, unchecked against the bundle's files.

        Raises BundleMissing, BundleFormatUnsupported, BundleCorrupt.
        """
        file = folder / MANIFEST
        if not file.is_file():
            raise BundleMissing(f"{file}: no such file", hint="a bundle without a manifest was never finished")
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleCorrupt(f"{MANIFEST}: larger than {MAX_MANIFEST_BYTES} bytes")
        try:
            values = json.loads(file.read_bytes())
        except ValueError as error:
            raise BundleCorrupt(f"{MANIFEST}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise BundleCorrupt(f"{MANIFEST}: not a JSON object")
        version = values.get("format_version")
        if isinstance(version, int) and version not in FORMAT_VERSIONS:
            raise BundleFormatUnsupported(
                f"{MANIFEST}: format version {version}, this reader knows {', '.join(map(str, FORMAT_VERSIONS))}",
                hint="upgrade idiolect",
            )
        digest, bundle_id = values.pop("digest", None), values.pop("bundle_id", None)
        try:
            manifest = cls.model_validate(values)
        except ValidationError as error:
            raise BundleCorrupt(f"{MANIFEST}: {error}") from error
        if digest != manifest.digest:
            raise BundleCorrupt(f"{MANIFEST}: differs from its digest", hint="copy the bundle again")
        if bundle_id != manifest.bundle_id:
            raise BundleCorrupt(f"{MANIFEST}: bundle_id does not fit the contents")
        return manifest

    def write(self, folder: Path) -> None:
        """Write it to the bundle's folder, and on to the disk: a bundle without one does not count."""
        values = {"digest": self.digest, "bundle_id": self.bundle_id, **self.model_dump(mode="json")}
        with (folder / MANIFEST).open("w") as file:
            file.write(json.dumps(values, indent=2, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def bundle_id(self) -> str:
        """16 hex digits over everything that changes a reply: bundles that serve alike share it.

        Digests of the files stand for their contents; `created`, `training`, `cluster_names` and `also_serves` are left
        out.
        """
        return self._hash(exclude={"created", "training", "cluster_names", "also_serves"})[:16]

    @property
    def digest(self) -> str:
        """SHA-256 over every field: a manifest that was damaged in copying is noticed like any other file."""
        return self._hash(exclude=set())

    def _hash(self, exclude: set[str]) -> str:
        # Bundles from before there were such fields keep their digests.
        exclude = exclude | {name for name in OPTIONAL if getattr(self, name) is None}
        content = json.dumps(self.model_dump(mode="json", exclude=exclude), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
