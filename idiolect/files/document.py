"""JSON that somebody else wrote: parsed within bounds, and its faults said in few words."""

import json
from collections import Counter
from typing import Any

from pydantic import ValidationError

from idiolect.errors import BundleCorrupt

MAX_DEPTH = 32
MAX_INTEGER = 2**63 - 1
MESSAGE_CHARS = 200


def parse(raw: bytes | bytearray, name: str) -> dict[str, Any]:
    """The object in a JSON file (RFC 8259), without what parsers take differently.

    Raises BundleCorrupt, which names the file, for what is no object in UTF-8, for a key given twice, numbers that are
    not finite or beyond 64 bits, half a surrogate pair, and more than MAX_DEPTH levels.
    """
    try:
        values = json.loads(
            raw.decode(),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
        )
        _check_tree(values)
    except RecursionError:
        raise BundleCorrupt(f"{name}: nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise BundleCorrupt(f"{name}: {brief(str(error))}") from error
    if not isinstance(values, dict):
        raise BundleCorrupt(f"{name}: not a JSON object")
    return values


def brief(text: str) -> str:
    """Foreign text for a message: on one line, printable, and cut."""
    return repr(text[:MESSAGE_CHARS])[1:-1] + ("..." if len(text) > MESSAGE_CHARS else "")


def first_fault(error: ValidationError) -> str:
    """The first of pydantic's errors in words, without the value, which may be huge."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, found["loc"]))
    return brief(f"{where}: {found['msg']}" if where else str(found["msg"]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"{twice[: MESSAGE_CHARS // 2]!r} is given twice")
    return values


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"{text[:40]} is beyond 64 bits")
    return int(text)


def _check_tree(root: Any) -> None:
    level = [root]
    for _ in range(MAX_DEPTH + 1):
        following: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode()  # UnicodeEncodeError is a ValueError: half a surrogate pair
            elif isinstance(value, dict):
                following += [*value, *value.values()]
            elif isinstance(value, list):
                following += value
        if not following:
            return
        level = following
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
