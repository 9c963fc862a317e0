"""What a bundle says of itself: `manifest.json`, the only file that is read before anything is checked."""

import hashlib
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from idiolect.errors import BundleCorrupt, BundleFormatUnsupported, BundleMissing
from idiolect.files.document import brief, first_fault, parse
from idiolect.files.folder import MANIFEST, MAX_FILES, Digest, FileDigest, open_regular, read_open
from idiolect.prompt.layout import Layout
from idiolect.text import is_printable
from idiolect.user_model import Kind

MAX_MANIFEST_BYTES = 1 << 20
MAX_TRAINING_BYTES = 1 << 18
MAX_RANK = 512
"""That vLLM serves."""
FORMAT_VERSIONS = (1, 2)
"""1: user tokens go before an anchor, in token ids. 2: before what opens a user turn; the end of a reply is stated."""
OPTIONAL = ("bank", "cluster_names", "decoding", "also_serves")


def _one_line(text: str) -> str:
    if not is_printable(text) or len(text.splitlines()) > 1:
        raise ValueError("control characters and line breaks are not allowed")
    return text


ClusterName = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_one_line)]
Name = Annotated[str, StringConstraints(max_length=256), AfterValidator(_one_line)]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("a module is named twice")
    return names


MODULE_NAME = re.compile(r"[A-Za-z0-9_.]{1,128}")
Modules = Annotated[tuple[str, ...], Field(min_length=1, max_length=64), AfterValidator(_distinct)]
"""Which linear layers have a LoRA; the trainer says which names there are."""
MAX_ALPHA = 1_000_000
Size = Annotated[int, Field(ge=1, le=1 << 31)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BaseModelIdentity(_Strict):
    """The model that the bundle was trained on. `fingerprint` is what is compared; the rest is for people."""

    name: Name
    architecture: Name
    hidden_size: Size
    vocab_size: Size
    fingerprint: Digest


class AcceptedCopy(_Strict):
    """Another form of the base model, such as a quantized one, that somebody has decided may serve the bundle."""

    name: Name
    fingerprint: Digest


class UserModelShape(_Strict):
    kind: Kind
    n_user_tokens: int = Field(ge=1, le=64)
    hidden_size: Size
    code_size: Size
    n_users: int = Field(ge=0, le=1 << 31)


class AdapterWeights(_Strict):
    """The LoRA as a PEFT folder `adapter/`, to be served beside or merged into the base model."""

    kind: Literal["adapter"] = "adapter"
    rank: int = Field(ge=1, le=MAX_RANK)
    alpha: float = Field(gt=0, le=MAX_ALPHA)
    target_modules: Modules

    @field_validator("target_modules")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if odd := [name for name in names if not MODULE_NAME.fullmatch(name)]:
            raise ValueError(f"{brief(odd[0])} is no name of a module")
        return names


class MergedWeights(_Strict):
    """The whole model, LoRA already added to its weights, as a Hugging Face folder `model/`."""

    kind: Literal["merged"] = "merged"


class BankShape(_Strict):
    """The question bank: `bank.jsonl` and `bank.safetensors`."""

    n_questions: int = Field(ge=1, le=4096)
    n_coordinates: int = Field(ge=1, le=1024)


class Decoding(_Strict):
    """How replies are drawn under the bundle where a request does not say otherwise: as they were measured."""

    frequency_penalty: float = Field(default=0.0, ge=0, le=2)
    """Subtracted from a token's logit for each time that the reply has it already (as in OpenAI's API)."""


class Manifest(_Strict):
    """docs/bundle-format.md says what each field MUST hold."""

    format_version: Literal[1, 2]
    created: Annotated[str, StringConstraints(max_length=64)]
    base_model: BaseModelIdentity
    user_model: UserModelShape
    layout: Layout
    weights: Annotated[AdapterWeights | MergedWeights, Field(discriminator="kind")]
    bank: BankShape | None = None
    cluster_names: tuple[ClusterName, ...] | None = None
    """What people call each of the K clusters; of cluster models only."""
    decoding: Decoding | None = None
    also_serves: tuple[AcceptedCopy, ...] | None = Field(default=None, max_length=256)
    """Copies of the base model that may serve the bundle although their bytes differ."""
    training: dict[str, Any]
    files: dict[FileName, FileDigest] = Field(max_length=MAX_FILES)

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        datetime.fromisoformat(text)
        return text

    @field_validator("training")
    @classmethod
    def _is_bounded(cls, run: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(run)) > MAX_TRAINING_BYTES:
            raise ValueError(f"larger than {MAX_TRAINING_BYTES} bytes")
        return run

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.format_version != self.layout.format_version:
            raise ValueError("layout: of another format than the manifest")
        names = self.cluster_names
        n_clusters = self.user_model.code_size if self.user_model.kind == "cluster" else 0
        if names is not None and not len(names) == len(set(names)) == n_clusters:
            raise ValueError("cluster_names: want one distinct name for each cluster of a cluster model")
        ours, theirs = self.user_model.hidden_size, self.base_model.hidden_size
        if ours != theirs:
            raise ValueError(f"user_model.hidden_size is {ours}, base_model.hidden_size is {theirs}")
        placed = (*(self.layout.anchor or ()), self.layout.bos_id, self.layout.end_id)
        if not all(0 <= token < self.base_model.vocab_size for token in placed if token is not None):
            raise ValueError(f"layout: has a token that is not in the vocabulary of {self.base_model.vocab_size}")
        if not is_printable(self.layout.opening or ""):
            raise ValueError("layout: opening has control characters")
        return self

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest alone, unchecked against the bundle's files.

        Raises BundleMissing, BundleFormatUnsupported, BundleCorrupt.
        """
        try:
            with open_regular(folder / MANIFEST, str(folder / MANIFEST)) as file:
                values = parse(read_open(file, MANIFEST, MAX_MANIFEST_BYTES), MANIFEST)
        except BundleMissing as error:
            raise BundleMissing(error.message, hint="a bundle without a manifest was never finished") from error
        version = values.get("format_version")
        if isinstance(version, int) and version not in FORMAT_VERSIONS:
            raise BundleFormatUnsupported(
                f"{MANIFEST}: format version {version}, this reader knows {', '.join(map(str, FORMAT_VERSIONS))}",
                hint="upgrade idiolect",
            )
        digest, bundle_id = values.pop("digest", None), values.pop("bundle_id", None)
        try:
            manifest = cls.model_validate_json(json.dumps(values))  # strict, but for arrays, which JSON has for tuples
        except ValidationError as error:
            raise BundleCorrupt(f"{MANIFEST}: {first_fault(error)}") from error
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
