"""Files of JSON lines as they come: every line is read, or is bad and said to be, and this is where that is decided.

A byte order mark, blank lines and Windows line ends are read past. A file in another encoding of Unicode is refused.
"""

import gzip
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from idiolect_training.errors import BadPreference

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Parsed = TypeVar("Parsed")
BadLines = Literal["stop", "skip"]
"""A bad line ends the run, or is logged, counted and left out."""

SHOWN_BAD_LINES = 20
SHOWN_NAMES = 5
MARK = b"\xef\xbb\xbf"
ENCODINGS = {
    "UTF-32": re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]"),
    "UTF-16": re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]"),
}
"""How a file begins that is not UTF-8: with a byte order mark, or with two ASCII characters (RFC 4627, section 3)."""


def read_lines(path: Path, parse: Callable[[bytes], Parsed], bad_lines: BadLines) -> list[tuple[str, Parsed]]:
    """What `parse` makes of each line of a file, with its place. Raises BadPreference as `judge` does."""
    return parse_lines(path, raw_lines(path), parse, bad_lines)


def parse_lines(
    path: Path, lines: Iterable[tuple[str, bytes]], parse: Callable[[bytes], Parsed], bad_lines: BadLines
) -> list[tuple[str, Parsed]]:
    """What `parse` makes of each of these lines of a file, with its place. Raises BadPreference as `judge` does."""

    def checked(line: bytes) -> Parsed:
        _check(line)
        return parse(line)

    return judge(str(path), lines, checked, bad_lines)


def judge(
    name: str, items: Iterable[tuple[str, Item]], parse: Callable[[Item], Parsed], bad_lines: BadLines
) -> list[tuple[str, Parsed]]:
    """What `parse` makes of each line of `name`, with its place; a line is bad when `parse` raises ValueError.

    Raises BadPreference for a bad line (unless told to skip), an unreadable file, and when no line is good.
    """
    good: list[tuple[str, Parsed]] = []
    n_bad = 0
    for source, item in items:
        try:
            good.append((source, parse(item)))
        except ValueError as error:
            reason = _reason(error)
            if bad_lines == "stop":
                raise BadPreference(f"{source}: {reason}") from error
            n_bad += 1
            if n_bad <= SHOWN_BAD_LINES:
                log.warning("skipped %s: %s", source, reason)
    if bad_lines == "skip":
        level = logging.WARNING if n_bad else logging.INFO
        log.log(level, "%s: skipped %d bad lines of %d", name, n_bad, n_bad + len(good))
    if not good:
        raise BadPreference(f"{name}: no usable line")
    return good


def raw_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line of a file that is not blank, unpacked when its name ends in `.gz`, with its place "file:line".

    Raises BadPreference.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            encoding = next((name for name, begin in ENCODINGS.items() if begin.match(lines.peek(4))), None)
            if encoding is not None:
                raise BadPreference(
                    f"{path}: encoded as {encoding}, not as UTF-8", hint=f"convert it: iconv -f {encoding} -t UTF-8"
                )
            for number, line in enumerate(lines, start=1):
                # Not only the first: files are put together.
                line = line.removeprefix(MARK).rstrip(b"\r\n")
                if line.decode(errors="replace").strip():
                    yield f"{path}:{number}", line
    except (OSError, EOFError, zlib.error, ValueError) as error:
        # ValueError is a path that no file can have.
        place = f"{path}:{number + 1}: line" if number else f"{path}"
        raise BadPreference(f"{place}: {getattr(error, 'strerror', None) or error}") from error


def check_keys(text: str | bytes) -> None:
    """Raises ValueError when an object in this JSON has a key twice: a parser would drop one of them, unsaid."""
    # What is no JSON, or too deep, the parser of the fields names better.
    with suppress(json.JSONDecodeError, RecursionError):
        json.loads(text, object_pairs_hook=_distinct, parse_int=str, parse_float=str)


def some(names: Sequence[str]) -> str:
    """The first few of many names.

    >>> some(list("abcdefg"))
    'a, b, c, d, e, ...'
    """
    return ", ".join([*names[:SHOWN_NAMES], *["..."] * (len(names) > SHOWN_NAMES)])


def _check(line: bytes) -> None:
    """Raises ValueError with what is wrong with a line whatever its fields are."""
    if b"\0" in line:
        raise ValueError(f"NUL at byte {line.index(0) + 1}")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte 0x{line[error.start]:02x} at byte {error.start + 1}") from error
    if text.lstrip().startswith("["):
        raise ValueError("a JSON array, where one object a line is wanted")
    if text.strip() == "{":
        raise ValueError("a JSON object over several lines, where one object a line is wanted")
    check_keys(text)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        # A name may be half a character (a lone surrogate), which no log can print.
        raise ValueError(f"{name.encode(errors='backslashreplace').decode()}: given twice")
    return found


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "line"
    return f"{where}: {first['msg']}"
