"""Write, read and check a bundle: a folder with a manifest, user codes, the user model's basis and the weights.

The format is specified in docs/bundle-format.md. Nothing here unpickles, follows links or trusts a file before its
digest has been compared (idiolect/files), and a bundle that is read can be served.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from idiolect.bank import Bank
from idiolect.errors import BundleCorrupt, BundleShapeMismatch, UserCodeError
from idiolect.files.adapter import read_adapter
from idiolect.files.document import brief, parse
from idiolect.files.folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    BASIS,
    MANIFEST,
    MODEL,
    MODEL_CONFIG,
    QUESTIONS,
    TABLE,
    TRAINED_VOTES,
    USERS,
    Folder,
    digest,
    listing,
)
from idiolect.files.tensors import Tensors, check_weights
from idiolect.files.users import pack_ids, read_user_model, read_users
from idiolect.manifest import (
    AdapterWeights,
    BankShape,
    BaseModelIdentity,
    Decoding,
    Manifest,
    MergedWeights,
    UserModelShape,
)
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TrainedVotes
from idiolect.user_model import Array, UserModel
from idiolect.votes import Votes


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. `codes` [n_users, code_size] belong to `user_ids` in order.

    Not every bundle has a bank, or says which votes its codes were trained on.
    """

    path: Path
    manifest: Manifest
    user_model: UserModel
    user_ids: Sequence[str]
    codes: Array
    files: Folder
    bank: Bank | None = None
    trained_votes: TrainedVotes | None = None

    @cached_property
    def bundle_id(self) -> str:
        """See Manifest.bundle_id. Every request asks for it."""
        return self.manifest.bundle_id

    @property
    def adapter_path(self) -> Path | None:
        return self.path / ADAPTER if self.manifest.weights.kind == "adapter" else None

    @property
    def model_path(self) -> Path | None:
        return self.path / MODEL if self.manifest.weights.kind == "merged" else None

    def users(self) -> Iterator[tuple[str, Array]]:
        """Every trained user's id and code."""
        yield from zip(self.user_ids, self.codes, strict=True)

    def adapter(self) -> Tensors:
        """The LoRA's matrices by PEFT's names; read, checked and compared with their digest anew.

        Raises BundleError when the bundle is merged, or was changed.
        """
        weights = self.manifest.weights
        if weights.kind != "adapter":
            raise BundleCorrupt(f"{self.path}: has no adapter")
        return read_adapter(self.files, weights.rank, weights.alpha, weights.target_modules)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check everything: files, digests, types, shapes, numbers, and that all of them fit together.

        Raises BundleMissing, BundleFormatUnsupported, BundleCorrupt, BundleShapeMismatch; each names the file.
        """
        manifest = Manifest.read(path)
        files = Folder(path, manifest.files)
        _require(files, manifest)
        shape = manifest.user_model
        user_model = read_user_model(files, shape)
        user_ids, codes = read_users(files, shape, user_model)
        bank = None
        if manifest.bank is not None:
            bank = Bank.read(files, manifest.bank.n_questions, manifest.bank.n_coordinates, shape.code_size)
            try:
                bank.code(user_model, bank.prior(user_model).infer(Votes.none(len(bank.mean)), bank.likelihood))
            except UserCodeError as error:
                raise BundleCorrupt(f"{TABLE}: a new user's code is impossible: {error.message}") from error
        trained_votes = TrainedVotes.read(files) if TRAINED_VOTES in manifest.files else None
        _check_weights(files, manifest)
        files.verify_rest()
        return cls(path, manifest, user_model, user_ids, codes, files, bank, trained_votes)


def write_bundle(
    path: Path,
    *,
    base_model: BaseModelIdentity,
    layout: Layout,
    user_model: UserModel,
    user_ids: Sequence[str],
    codes: Array,
    weights: AdapterWeights | MergedWeights,
    write_weights: Callable[[Path], None],
    training: dict[str, Any],
    bank: Bank | None = None,
    cluster_names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    trained_votes: TrainedVotes | None = None,
) -> Bundle:
    """Write a bundle to `path`, read it back, and only then replace one that is there.

    `write_weights` fills the `adapter/` or `model/` folder that it is given. Everything goes to a folder beside
    `path` first, the manifest last; a crash at any point leaves the old bundle or none, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _save({"basis": user_model.basis, "generic_code": user_model.generic_code}, partial / BASIS)
        _save({"codes": codes.astype(np.float32), **pack_ids(user_ids)}, partial / USERS)
        if bank is not None:
            bank.write(partial)
        if trained_votes is not None:
            trained_votes.write(partial)
        folder = partial / (ADAPTER if weights.kind == "adapter" else MODEL)
        folder.mkdir()
        write_weights(folder)
        files = {name: digest(partial / name) for name in listing(partial)}
        manifest = Manifest(
            format_version=layout.format_version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            base_model=base_model,
            user_model=UserModelShape(
                kind=user_model.kind,
                n_user_tokens=user_model.n_user_tokens,
                hidden_size=user_model.hidden_size,
                code_size=user_model.code_size,
                n_users=len(user_ids),
            ),
            layout=layout,
            weights=weights,
            bank=None if bank is None else BankShape(n_questions=len(bank.questions), n_coordinates=len(bank.mean)),
            cluster_names=None if cluster_names is None else tuple(cluster_names),
            decoding=decoding,
            training=training,
            files=files,
        )
        manifest.write(partial)
        written = Bundle.read(partial)
        partial.chmod(0o755)
        old = path.with_name(f".{path.name}.old")
        _remove(old)
        if os.path.lexists(path):
            path.rename(old)
        partial.rename(path)
        _remove(old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(written, path=path, files=written.files.moved(path))


def _save(tensors: dict[str, NDArray[Any]], path: Path) -> None:
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _require(files: Folder, manifest: Manifest) -> None:
    """The files of a bundle of this kind, no more and no less. Raises BundleCorrupt."""
    bank = () if manifest.bank is None else (QUESTIONS, TABLE)
    if manifest.weights.kind == "adapter":
        return files.require((BASIS, USERS, *bank, ADAPTER_CONFIG, ADAPTER_TENSORS), (TRAINED_VOTES,))
    model = files.names(MODEL)
    if not any(name.endswith(".safetensors") for name in model):
        raise BundleCorrupt(f"{MANIFEST}: names no weights in {MODEL}/")
    files.require((BASIS, USERS, *bank, MODEL_CONFIG), (TRAINED_VOTES, *model))


def _check_weights(files: Folder, manifest: Manifest) -> None:
    """The adapter, or the whole model. Raises BundleCorrupt, BundleShapeMismatch."""
    weights, base = manifest.weights, manifest.base_model
    if weights.kind == "adapter":
        read_adapter(files, weights.rank, weights.alpha, weights.target_modules)
        return
    config = parse(files.read(MODEL_CONFIG), MODEL_CONFIG)
    for name in ("hidden_size", "vocab_size"):
        if config.get(name) != getattr(base, name):
            found = brief(str(config.get(name)))
            raise BundleShapeMismatch(f"{MODEL_CONFIG}: {name} is {found}, the manifest has {getattr(base, name)}")
    for name in files.names(MODEL):
        if name.endswith(".safetensors"):
            with files.verified(name) as file:
                check_weights(file, name)
