"""Tensors of a safetensors file that somebody else wrote: exactly those that are expected, each of them finite.

The header is read by hand, since the library reads one of any size, keeps the last of two tensors of one name, and
has no numpy type for some that a file may name. A test compares what is read with what the library reads.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from idiolect.errors import BundleCorrupt, BundleShapeMismatch
from idiolect.files.document import brief, parse

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "U8": np.dtype(np.uint8),
}
"""Of the tensors that are computed with here. A model's own may have others."""
MAX_HEADER_BYTES, MAX_MODEL_HEADER_BYTES = 1 << 20, 16 << 20
"""About 100 bytes a tensor: the widest adapter has 2,000 of them, a model with experts 100,000."""
MAX_DIMENSIONS = 8
BLOCK_BYTES = 1 << 22
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types with numbers that are not finite."""

Tensors = dict[str, NDArray[Any]]
Expected = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor; a length of -1 fits any."""


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor: the bytes of its data are [begin, end) of those behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(raw: bytearray, name: str, expected: Expected | None = None) -> Tensors:
    """The tensors of a file's content, which must be exactly the expected ones, if those are given.

    Raises BundleCorrupt for what is no safetensors file and for numbers that are not finite, BundleShapeMismatch.
    """
    if len(raw) < 8:
        raise BundleCorrupt(f"{name}: not a safetensors file: too short")
    (length,) = struct.unpack_from("<Q", raw)
    if length > min(MAX_HEADER_BYTES, len(raw) - 8):
        raise BundleCorrupt(f"{name}: its header has {length} bytes, of at most {MAX_HEADER_BYTES} and of the file's")
    entries = _entries(raw[8 : 8 + length], name, len(raw) - 8 - length)
    if expected is not None:
        _check_expected(entries, expected, name)
    if unknown := [tensor for tensor, entry in entries.items() if entry.dtype not in DTYPES]:
        raise BundleShapeMismatch(f"{name}: {brief(unknown[0])} is of type {brief(entries[unknown[0]].dtype)}")
    data = memoryview(raw)[8 + length :]
    tensors: Tensors = {
        tensor: np.ndarray(entry.shape, DTYPES[entry.dtype], data, entry.begin) for tensor, entry in entries.items()
    }
    for tensor, values in tensors.items():
        if not _is_finite(values):
            raise BundleCorrupt(f"{name}: {brief(tensor)} has a number that is not finite")
    return tensors


def check_weights(file: BinaryIO, name: str) -> None:
    """Look through a model's weights, block by block. Raises BundleCorrupt as `read_tensors` does.

    Types that numpy does not compute with (such as of 8 bits) are not looked into.
    """
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_MODEL_HEADER_BYTES + 1
    if length > MAX_MODEL_HEADER_BYTES:
        raise BundleCorrupt(f"{name}: not a safetensors file, or its header has over {MAX_MODEL_HEADER_BYTES} bytes")
    header = file.read(length)
    n_bytes = file.seek(0, 2) - 8 - length
    for tensor, entry in _entries(header, name, n_bytes).items():
        if entry.dtype not in FLOATS:
            continue
        file.seek(8 + length + entry.begin)
        left = entry.end - entry.begin
        while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
            left -= len(block)
            if not _is_finite(np.frombuffer(block, DTYPES[entry.dtype])):
                raise BundleCorrupt(f"{name}: {brief(tensor)} has a number that is not finite")


def _is_finite(values: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):  # ml_dtypes warns of what is looked for
        return bool(np.isfinite(values).all())


def _check_expected(entries: Mapping[str, Entry], expected: Expected, name: str) -> None:
    if set(entries) != set(expected):
        held = f"{len(entries)} tensors" if len(entries) > 20 else str(sorted(entries))
        raise BundleShapeMismatch(f"{name}: holds {brief(held)}, expected {brief(str(sorted(expected)))}")
    for tensor, (dtype, shape) in expected.items():
        entry = entries[tensor]
        fits = len(entry.shape) == len(shape) and all(w in (-1, g) for w, g in zip(shape, entry.shape, strict=True))
        if entry.dtype != dtype or not fits:
            found = brief(f"{entry.dtype}{list(entry.shape)}")
            raise BundleShapeMismatch(f"{name}: {tensor} is {found}, expected {dtype}{list(shape)}")


def _entries(header: bytes | bytearray, name: str, n_data_bytes: int) -> dict[str, Entry]:
    """As the format wants them: one behind the other, without gaps, to the end of the file."""
    if header[:1] != b"{":
        raise BundleCorrupt(f"{name}: not a safetensors file: no header")
    values = parse(header, name)
    metadata = values.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise BundleCorrupt(f"{name}: its metadata are not texts")
    entries = {tensor: _entry(described, f"{name}: {brief(tensor)}") for tensor, described in values.items()}
    at = 0
    for tensor, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise BundleCorrupt(f"{name}: {brief(tensor)} does not begin where the tensor before it ends")
        at = entry.end
    if at != n_data_bytes:
        raise BundleCorrupt(f"{name}: its tensors have {at} bytes, the file {n_data_bytes}")
    return entries


def _entry(described: Any, where: str) -> Entry:
    """Raises BundleCorrupt for what does not describe a tensor."""
    match described:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if len(described) == 3:
            numbers = [begin, end, *shape]
            whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
            if whole and min(numbers) >= 0 and begin <= end and len(shape) <= MAX_DIMENSIONS:
                n_bytes = math.prod(shape) * DTYPES[dtype].itemsize if dtype in DTYPES else end - begin
                if n_bytes != end - begin:
                    raise BundleCorrupt(f"{where} has {end - begin} bytes, not those of its shape")
                return Entry(dtype, tuple(shape), begin, end)
    raise BundleCorrupt(f"{where} is not described as a tensor")
