"""M4: data files as they come, and damaged ones: a typed error with its place, or every line accounted for."""

import json
import logging
import random
import re
from pathlib import Path
from typing import Any, Literal

import pytest

from idiolect_training.data.lines import BadLines
from idiolect_training.data.preferences import read_preferences
from idiolect_training.errors import BadPreference
from tests.conftest import Evidence
from tests.parts.odd_files import CHAT, GOOD, ODD

N_MUTATED = 2000
JUNK: list[Any] = [
    None,
    True,
    0,
    -1.5,
    10**30,
    float("nan"),
    "",
    " ",
    "\0",
    "\ud800",
    "a" * 300,
    [],
    {},
    [GOOD],
    "a/profile",
]
FRAGMENTS = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\n\n",
    b" ",
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"\\",
    b"\\u0000",
]
MODES: tuple[BadLines, ...] = ("stop", "skip")

Outcome = Literal["kept", "refused", "traceback", "no place", "unaccounted"]


def read(path: Path, bad_lines: BadLines, caplog: pytest.LogCaptureFixture) -> tuple[int, int, str]:
    """Lines that were kept, lines that the log counts as left out, and what error and log say."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    kept, said = 0, []
    try:
        kept = len(read_preferences(path, bad_lines))
    except BadPreference as error:
        said = [error.message]
    said += [record.getMessage() for record in caplog.records]
    totals = [re.search(r"skipped (\d+) bad lines of (\d+)$", text) for text in said]
    n_bad = sum(int(total[1]) for total in totals if total)
    assert all(int(total[2]) == kept + n_bad for total in totals if total)
    return kept, n_bad, "\n".join(said)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read_or_its_fault_is_named(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture):
    odd = ODD[name]
    path = tmp_path / "votes.jsonl"
    path.write_bytes(odd.content)
    kept, _, said = read(path, "stop", caplog)
    if odd.reason:
        first_bad = r":\d+: " if odd.bad else ": "
        assert kept == 0
        assert re.match(re.escape(str(path)) + first_bad, said)
        assert odd.reason in said
    else:
        assert (kept, said) == (odd.kept, "")
    kept, n_bad, said = read(path, "skip", caplog)
    assert (kept, n_bad) == (odd.kept, odd.bad)
    assert odd.reason in said


def outcome(path: Path, bad_lines: BadLines, caplog: pytest.LogCaptureFixture) -> Outcome:
    n_lines = sum(
        bool(text.removeprefix("\ufeff").strip()) for text in path.read_bytes().decode(errors="replace").split("\n")
    )
    try:
        kept, n_bad, said = read(path, bad_lines, caplog)
    except Exception:
        return "traceback"
    if kept:
        return "kept" if kept + n_bad == n_lines else "unaccounted"
    whole = any(text in said for text in ("no usable line", "encoded as"))
    named = re.match(re.escape(str(path)) + (": " if whole else r":\d+: "), said) or (bad_lines == "skip" and whole)
    if not named:
        return "no place"
    return "refused" if bad_lines == "stop" or n_bad == n_lines or "encoded as" in said else "unaccounted"


def mutate(rng: random.Random) -> bytes:
    """A good file with one to three faults: in its bytes, its lines or its values."""
    values: list[dict[str, Any]] = [{**(GOOD, CHAT)[i % 2], "user_id": f"u{i}"} for i in range(rng.randint(1, 6))]
    if rng.random() < 0.4:
        value = rng.choice(values)
        value[rng.choice([*value, "profile", "unknown"])] = rng.choice(JUNK)
    ends = rng.choice(["\n", "\n", "\r\n"])
    lines = [json.dumps(value, ensure_ascii=rng.random() < 0.5) + ends for value in values]
    content = "".join(lines).encode(rng.choice(["utf-8"] * 9 + ["utf-16"]), errors="surrogatepass")
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(content) + 1), rng.randint(1, 40)
        parts = content.splitlines(keepends=True)
        match rng.randrange(6):
            case 0:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + content[at + length :]
            case 2:
                content = content[:at] + rng.choice(FRAGMENTS) + content[at:]
            case 3:
                content = content[:at]
            case 4:
                rng.shuffle(parts)
                content = b"".join(parts)
            case _:
                content = b"".join([*parts, *parts[:length]])
    return content


@pytest.mark.slow
def test_nothing_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture, evidence: Evidence):
    rng = random.Random(20)
    path = tmp_path / "votes.jsonl"
    found: dict[Outcome, int] = dict.fromkeys(("kept", "refused", "traceback", "no place", "unaccounted"), 0)
    for content in [*(odd.content for odd in ODD.values()), *(mutate(rng) for _ in range(N_MUTATED))]:
        path.write_bytes(content)
        for bad_lines in MODES:
            found[outcome(path, bad_lines, caplog)] += 1
    assert min(found["kept"], found["refused"]) > N_MUTATED / 4
    evidence(
        "M4",
        {
            "odd_files": len(ODD),
            "mutated": N_MUTATED,
            "read": found["kept"],
            "refused": found["refused"],
            "tracebacks": found["traceback"],
            "errors_without_place": found["no place"],
            "unaccounted": found["unaccounted"],
        },
    )
