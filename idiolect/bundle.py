"""Write, read and check a bundle: a folder with a manifest, user codes, the user model's basis and the weights.

The format is specified in docs/bundle-format.md. Nothing here unpickles, follows links or trusts a file before its
digest has been compared.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from idiolect.bank import QUESTIONS, TABLE, Bank
from idiolect.errors import (
    BundleCorrupt,
    BundleMissing,
    BundleShapeMismatch,
    UserCodeError,
)
from idiolect.manifest import (
    MANIFEST,
    AdapterWeights,
    BankShape,
    BaseModelIdentity,
    Decoding,
    FileDigest,
    Manifest,
    MergedWeights,
    UserModelShape,
)
from idiolect.prompt.layout import Layout
from idiolect.trained_votes import TRAINED_VOTES, TrainedVotes
from idiolect.user_model import Array, UserModel
from idiolect.votes import Votes

BASIS = "basis.safetensors"
USERS = "users.safetensors"
ADAPTER = "adapter"
MODEL = "model"


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

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check everything: digests, shapes, finiteness.

        Raises BundleMissing, BundleFormatUnsupported, BundleCorrupt, BundleShapeMismatch; each names the file.
        """
        manifest = Manifest.read(path)
        _check_files(path, manifest)
        shape = manifest.user_model
        basis, generic = _read_basis(path / BASIS, shape)
        user_model = UserModel(shape.kind, basis, generic)
        user_ids, codes = _read_users(path / USERS, shape)
        try:
            user_model.check(generic)
            user_model.check(codes)
        except UserCodeError as error:
            raise BundleCorrupt(f"{USERS}: {error.message}") from error
        if len(set(user_ids)) != len(user_ids):
            raise BundleCorrupt(f"{USERS}: a user id occurs twice")
        bank = None
        if manifest.bank is not None:
            bank = Bank.read(path, manifest.bank.n_questions, manifest.bank.n_coordinates, shape.code_size)
            try:
                bank.code(user_model, bank.prior(user_model).infer(Votes.none(len(bank.mean)), bank.likelihood))
            except UserCodeError as error:
                raise BundleCorrupt(f"{TABLE}: a new user's code is impossible: {error.message}") from error
        trained_votes = TrainedVotes.read(path) if TRAINED_VOTES in manifest.files else None
        return cls(path, manifest, user_model, user_ids, codes, bank, trained_votes)


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
    """Write a bundle to `path`, replacing one that is there, and read it back.

    `write_weights` fills the `adapter/` or `model/` folder that it is given. Everything goes to a folder beside
    `path` first, the manifest last; a crash at any point leaves the old bundle or none, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _save({"basis": user_model.basis, "generic_code": user_model.generic_code}, partial / BASIS)
        _save({"codes": codes.astype(np.float32), **_pack_ids(user_ids)}, partial / USERS)
        if bank is not None:
            bank.write(partial)
        if trained_votes is not None:
            trained_votes.write(partial)
        folder = partial / (ADAPTER if weights.kind == "adapter" else MODEL)
        folder.mkdir()
        write_weights(folder)
        files = {name: _digest(partial / name) for name in _listing(partial)}
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
        partial.chmod(0o755)
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.read(path)


def _save(tensors: dict[str, NDArray[Any]], path: Path) -> None:
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def _listing(path: Path) -> list[str]:
    """Every file below the folder except the manifest, as sorted relative names."""
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())
    return sorted(name for name in names if name != MANIFEST)


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(sha256=digest, n_bytes=path.stat().st_size)


def _check_files(path: Path, manifest: Manifest) -> None:
    found = set(_listing(path))
    if missing := sorted(set(manifest.files) - found):
        raise BundleMissing(f"{missing[0]}: named by the manifest, not there")
    if extra := sorted(found - set(manifest.files)):
        raise BundleCorrupt(f"{extra[0]}: not named by the manifest")
    bank = () if manifest.bank is None else (QUESTIONS, TABLE)
    for required in (BASIS, USERS, *bank):
        if required not in manifest.files:
            raise BundleCorrupt(f"{MANIFEST}: names no {required}")
    for name, expected in manifest.files.items():
        if (path / name).is_symlink() or _digest(path / name) != expected:
            raise BundleCorrupt(f"{name}: differs from its digest", hint="copy the bundle again")


def _load(path: Path, expected: dict[str, tuple[type[np.generic], tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Tensors of a file, which must be exactly the expected ones; a length of -1 fits any."""
    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise BundleCorrupt(f"{path.name}: {error}") from error
    if set(tensors) != set(expected):
        raise BundleShapeMismatch(f"{path.name}: holds {sorted(tensors)}, expected {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        fits = len(tensor.shape) == len(shape) and all(w in (-1, g) for w, g in zip(shape, tensor.shape, strict=True))
        if tensor.dtype != dtype or not fits:
            raise BundleShapeMismatch(f"{path.name}: {name} is {tensor.dtype}{tensor.shape}, expected {shape}")
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise BundleCorrupt(f"{path.name}: {name} has a number that is not finite")
    return tensors


def _read_basis(path: Path, shape: UserModelShape) -> tuple[Array, Array]:
    tokens = (shape.n_user_tokens, shape.hidden_size)
    basis = {
        "individual": tokens,
        "cluster": (shape.code_size, *tokens),
        "low_rank": (1 + shape.code_size, *tokens),
    }[shape.kind]
    if shape.kind == "individual" and shape.code_size != shape.n_user_tokens * shape.hidden_size:
        raise BundleShapeMismatch(f"{MANIFEST}: code_size of an individual model must be n_user_tokens * hidden_size")
    tensors = _load(path, {"basis": (np.float32, basis), "generic_code": (np.float32, (shape.code_size,))})
    return tensors["basis"], tensors["generic_code"]


def _pack_ids(user_ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    encoded = [user_id.encode() for user_id in user_ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {"id_bytes": np.array(bytearray(b"".join(encoded)), np.uint8), "id_offsets": offsets}


def _read_users(path: Path, shape: UserModelShape) -> tuple[list[str], Array]:
    tensors = _load(
        path,
        {
            "codes": (np.float32, (shape.n_users, shape.code_size)),
            "id_bytes": (np.uint8, (-1,)),
            "id_offsets": (np.int64, (shape.n_users + 1,)),
        },
    )
    offsets, blob = tensors["id_offsets"], tensors["id_bytes"].tobytes()
    if offsets[0] != 0 or offsets[-1] != len(blob) or (np.diff(offsets) <= 0).any():
        raise BundleCorrupt(f"{path.name}: id_offsets do not cut id_bytes into names")
    try:
        ids = [blob[a:b].decode() for a, b in pairwise(offsets)]
    except UnicodeDecodeError as error:
        raise BundleCorrupt(f"{path.name}: a user id is not UTF-8") from error
    return ids, tensors["codes"]
