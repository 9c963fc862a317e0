"""What every user's tokens are made of (`basis.safetensors`), and one code for each user (`users.safetensors`)."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from pydantic import TypeAdapter, ValidationError

from idiolect.errors import BundleCorrupt, BundleShapeMismatch, UserCodeError
from idiolect.files.document import first_fault
from idiolect.files.folder import BASIS, MANIFEST, USERS, Folder
from idiolect.files.tensors import Tensors, read_tensors
from idiolect.manifest import UserModelShape
from idiolect.text import UserId
from idiolect.user_model import Array, UserModel

USER_IDS = TypeAdapter(list[UserId])
PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Allowed without a closer look, which would take seconds for a million users."""


def read_user_model(files: Folder, shape: UserModelShape) -> UserModel:
    """Raises BundleCorrupt, BundleShapeMismatch."""
    tokens = (shape.n_user_tokens, shape.hidden_size)
    basis = {
        "individual": tokens,
        "cluster": (shape.code_size, *tokens),
        "low_rank": (1 + shape.code_size, *tokens),
    }[shape.kind]
    if shape.kind == "individual" and shape.code_size != shape.n_user_tokens * shape.hidden_size:
        raise BundleShapeMismatch(f"{MANIFEST}: code_size of an individual model must be n_user_tokens * hidden_size")
    tensors = read_tensors(
        files.read(BASIS), BASIS, {"basis": ("F32", basis), "generic_code": ("F32", (shape.code_size,))}
    )
    user_model = UserModel(shape.kind, tensors["basis"], tensors["generic_code"])
    if shape.kind != "cluster" and user_model.generic_code.any():
        raise BundleCorrupt(f"{BASIS}: generic_code of a model that is not of clusters must be zeros")
    _checked(user_model, user_model.generic_code, BASIS)
    return user_model


def pack_ids(user_ids: Sequence[str]) -> Tensors:
    """`id_bytes` and `id_offsets`: user id i is the UTF-8 text between offsets i and i + 1."""
    encoded = [user_id.encode() for user_id in user_ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {"id_bytes": np.array(bytearray(b"".join(encoded)), np.uint8), "id_offsets": offsets}


def read_users(files: Folder, shape: UserModelShape, user_model: UserModel) -> tuple[list[str], Array]:
    """Ids and codes [n_users, code_size]. Raises BundleCorrupt, BundleShapeMismatch."""
    expected = {
        "codes": ("F32", (shape.n_users, shape.code_size)),
        "id_bytes": ("U8", (-1,)),
        "id_offsets": ("I64", (shape.n_users + 1,)),
    }
    tensors = read_tensors(files.read(USERS), USERS, expected)
    offsets, blob = tensors["id_offsets"], tensors["id_bytes"].tobytes()
    # Compared, not subtracted: a difference of two numbers of 64 bits may not be one.
    if offsets[0] != 0 or offsets[-1] != len(blob) or (offsets[1:] <= offsets[:-1]).any():
        raise BundleCorrupt(f"{USERS}: id_offsets do not cut id_bytes into names")
    try:
        ids = [blob[a:b].decode() for a, b in pairwise(offsets.tolist())]
        USER_IDS.validate_python([user_id for user_id in ids if not PLAIN_ID.fullmatch(user_id)])
    except UnicodeDecodeError as error:
        raise BundleCorrupt(f"{USERS}: a user id is not UTF-8") from error
    except ValidationError as error:
        raise BundleCorrupt(f"{USERS}: a user id that no request can name: {first_fault(error)}") from error
    if len(set(ids)) != len(ids):
        raise BundleCorrupt(f"{USERS}: a user id occurs twice")
    return ids, _checked(user_model, tensors["codes"], USERS)


def _checked(user_model: UserModel, codes: Array, name: str) -> Array:
    try:
        return user_model.check(codes)
    except UserCodeError as error:
        raise BundleCorrupt(f"{name}: {error.message}") from error
