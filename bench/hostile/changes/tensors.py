"""Changes of a safetensors file: other numbers, and headers that say something else."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.hostile.changes.texts import ODD_VALUES

NUMBERS = (0.0, -0.0, 1.0, -1.0, 4e3, 5e3, 65504.0, 7e4, 1e30, 3e38, -3e38, 1e-40, np.inf, -np.inf, np.nan)
OTHER_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "I8", "BOOL", "F8_E4M3", "", "float32", 7, None)
LENGTHS: tuple[Any, ...] = (0, 1, -1, 2, 2**31, 2**62, 2**63, 2**64, 1.5, True, None, "1", [])
HEADER_LENGTHS = (0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1)
NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "U64": "<u8", "U8": "u1"}

Header = dict[str, Any]


def read_safetensors(file: Path) -> tuple[Header, bytes]:
    """Header and data of a well-formed file."""
    raw = file.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_safetensors(file: Path, header: Header | str, data: bytes, length: int | None = None) -> None:
    """Whatever the header says; `length` is stated instead of its own."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def other_numbers(file: Path, rng: random.Random) -> None:
    """One or all of a tensor's numbers odd, two exchanged, all moved, negated or scaled."""
    header, data = read_safetensors(file)
    entry = header[_name(header, rng)]
    begin, end = entry["data_offsets"]
    values = np.frombuffer(data[begin:end], NUMPY[entry["dtype"]]).copy()
    one, other = rng.randrange(len(values)), rng.randrange(len(values))
    how = rng.choice(("one", "one", "one", "all", "swap", "roll", "scale"))
    with np.errstate(all="ignore"):
        if how == "one":
            values[one] = np.float64(rng.choice(NUMBERS)).astype(values.dtype)
        elif how == "all":
            values[:] = np.float64(rng.choice(NUMBERS)).astype(values.dtype)
        elif how == "swap":
            values[[one, other]] = values[[other, one]]
        elif how == "roll":
            values = np.roll(values, one)
        else:
            values = (values.astype(np.float64) * rng.choice((-1, 0, 2, 1e4, 1e20))).astype(values.dtype)
    write_safetensors(file, header, data[:begin] + values.tobytes() + data[end:])


def other_header(file: Path, rng: random.Random) -> None:
    """Another type, shape, place or name of a tensor; one too many, one too few; what is no header."""
    header, data = read_safetensors(file)
    rng.choice(HEADER_CHANGES)(header, _name(header, rng), rng)
    write_safetensors(file, header, data)


def other_whole(file: Path, rng: random.Random) -> None:
    """Another length of header or data, or a text that is no header."""
    header, data = read_safetensors(file)
    text, name = json.dumps(header), _name(header, rng)
    doubled = f"{text[:-1]}, {json.dumps({name: header[name]})[1:]}"
    match rng.choice(("length", "data", "text")):
        case "length":
            write_safetensors(file, header, data, rng.choice((*HEADER_LENGTHS, len(text) - 1, len(text) + 1)))
        case "data":
            write_safetensors(
                file, header, rng.choice((data[:-1], data + b"\0", data[: len(data) // 2], b"", data * 2))
            )
        case _:
            write_safetensors(file, rng.choice((doubled, f" {text}", f"[{text}]", text[:-1], "", "null")), data)


def _name(header: Header, rng: random.Random) -> str:
    return rng.choice([name for name in header if name != "__metadata__"])


def _type(header: Header, name: str, rng: random.Random) -> None:
    header[name]["dtype"] = rng.choice(OTHER_TYPES)


def _shape(header: Header, name: str, rng: random.Random) -> None:
    shape, number = header[name]["shape"], rng.choice(LENGTHS)
    header[name]["shape"] = rng.choice(([], [number], shape[::-1], [*shape, 1], [1, *shape], number, [2**40] * 2))


def _length(header: Header, name: str, rng: random.Random) -> None:
    shape = header[name]["shape"]
    shape[rng.randrange(len(shape))] = rng.choice(LENGTHS)


def _place(header: Header, name: str, rng: random.Random) -> None:
    header[name]["data_offsets"][rng.randrange(2)] = rng.choice(LENGTHS)


def _places(header: Header, name: str, rng: random.Random) -> None:
    begin, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = rng.choice(([], [begin], [end, begin], [0, end], [begin, begin], None, "x"))


def _absent(header: Header, name: str, rng: random.Random) -> None:
    del header[name]


def _renamed(header: Header, name: str, rng: random.Random) -> None:
    header[rng.choice(("x", "", "__metadata__", "\ud800", "a" * 10_000, "lora_A", f"{name} "))] = header.pop(name)


def _more(header: Header, name: str, rng: random.Random) -> None:
    end = header[name]["data_offsets"][1]
    header[rng.choice(("more", f"{name}.more"))] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}


def _metadata(header: Header, name: str, rng: random.Random) -> None:
    header["__metadata__"] = rng.choice(ODD_VALUES)


def _field(header: Header, name: str, rng: random.Random) -> None:
    header[name][rng.choice(("extra", "dtype ", "shape"))] = rng.choice(ODD_VALUES)


def _exchanged(header: Header, name: str, rng: random.Random) -> None:
    other = _name(header, rng)
    header[name], header[other] = header[other], header[name]


HEADER_CHANGES: tuple[Callable[[Header, str, random.Random], None], ...] = (
    *(_type, _shape, _length, _place, _places),
    *(_absent, _renamed, _more, _metadata, _field, _exchanged),
)
