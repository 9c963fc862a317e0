"""A user's code as fixed-layout bytes, checked on the way in and on the way out.

offset  size  field
0       4     magic "IDC1"
4       1     origin: 0 trained, 1 inferred, 2 unexplained
5       3     zero
8       4     n, number of floats, little endian
12      4n    the code, float32 little endian
12+4n   4     CRC-32 of all before
"""

import struct
import zlib
from typing import Literal

import numpy as np

from idiolect.errors import UserCodeError
from idiolect.user_model import Array

Origin = Literal["trained", "inferred", "unexplained"]
ORIGINS: tuple[Origin, ...] = ("trained", "inferred", "unexplained")
"""What a code comes from; an unexplained one is that from before votes which nobody whom we know would give."""

_HEAD = struct.Struct("<4sBxxxI")
_MAGIC = b"IDC1"


def encode_code(code: Array, origin: Origin = "trained") -> bytes:
    """The record of a code [n]. Raises UserCodeError when it is not finite."""
    if not np.isfinite(code).all():
        raise UserCodeError("user code has a number that is not finite")
    head = _HEAD.pack(_MAGIC, ORIGINS.index(origin), len(code)) + code.astype("<f4").tobytes()
    return head + struct.pack("<I", zlib.crc32(head))


def decode_code(record: bytes) -> tuple[Array, Origin]:
    """The code [n] and its origin. Raises UserCodeError for anything that `encode_code` did not write."""
    if len(record) < _HEAD.size + 4:
        raise UserCodeError("user record is truncated")
    magic, origin, n = _HEAD.unpack_from(record)
    if magic != _MAGIC or origin >= len(ORIGINS) or len(record) != _HEAD.size + 4 * n + 4:
        raise UserCodeError("user record has a wrong header or length")
    if zlib.crc32(record[:-4]) != struct.unpack("<I", record[-4:])[0]:
        raise UserCodeError("user record fails its checksum")
    code = np.frombuffer(record, "<f4", n, _HEAD.size).astype(np.float32)
    if not np.isfinite(code).all():
        raise UserCodeError("user record has a number that is not finite")
    return code, ORIGINS[origin]
