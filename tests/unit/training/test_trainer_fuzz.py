"""B8: thousands of damaged run files and data files: a typed error that names the place, or a valid run."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml

from idiolect.errors import IdiolectError
from idiolect_training.config import RunConfig
from idiolect_training.data.preferences import read_preferences
from idiolect_training.errors import BadPreference, BadRunConfig
from tests.live import DEMO_BUNDLE

N_FILES = 1500  # of each kind
RUN = (DEMO_BUNDLE.parent / "run.yaml").read_bytes()
DATA = b"".join((DEMO_BUNDLE.parent / "train.jsonl").read_bytes().splitlines(keepends=True)[:6])
JUNK: list[object] = [None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "", "\0", "\ud800", [], {}, [[]]]
FRAGMENTS = [
    b"\xff",
    b"\0",
    b"{",
    b"]",
    b'"',
    b": ",
    b"\n",
    b"\t",
    b"&a *a",
    b"!!python/object:os.system",
    b"\\ud800",
    b"%",
]


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four random cuts, repeats, replaced bytes or inserted fragments."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(content) + 1), rng.randint(1, 30)
        match rng.randrange(4):
            case 0:
                content = content[:at] + content[at + length :]
            case 1:
                content = content[:at] + content[at : at + length] * 2 + content[at + length :]
            case 2:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            case _:
                content = content[:at] + rng.choice(FRAGMENTS) + content[at:]
    return content


def damage_values(values: dict[str, object], rng: random.Random) -> dict[str, object]:
    """A key lost, added, or given a value of another type, also one level down."""
    values = json.loads(json.dumps(values))
    target = rng.choice([values, *(value for value in values.values() if isinstance(value, dict))])
    key = rng.choice([*target, "unknown"])
    if rng.random() < 0.2:
        target.pop(key, None)
    else:
        target[key] = rng.choice(JUNK)
    return values


def named(error: IdiolectError, path: Path) -> bool:
    return str(path) in error.message and len(error.message) > len(str(path)) + 2


@pytest.mark.slow
def test_damaged_run_files(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "run.yaml"
    refused = unnamed = 0
    for number in range(N_FILES):
        if number % 2:
            path.write_bytes(damage_bytes(RUN, rng))
        else:
            path.write_text(yaml.safe_dump(damage_values(yaml.safe_load(RUN), rng)), errors="surrogatepass")
        try:
            run = RunConfig.read(path)
        except BadRunConfig as error:
            refused += 1
            unnamed += not named(error, path)
        else:
            assert RunConfig.model_validate(run.model_dump()) == run
    assert refused > N_FILES / 4
    assert unnamed == 0


@pytest.mark.parametrize("bad_lines", ["stop", "skip"])
def test_damaged_data_files(tmp_path, bad_lines, caplog):
    rng = random.Random(1)
    path = tmp_path / "data.jsonl"
    refused = unnamed = 0
    for number in range(N_FILES // 2):
        if number % 2:
            path.write_bytes(damage_bytes(DATA, rng))
        else:
            lines = [json.loads(line) for line in DATA.splitlines()]
            place = rng.randrange(len(lines))
            lines[place] = damage_values(lines[place], rng)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        caplog.clear()
        try:
            preferences = read_preferences(path, bad_lines)
        except BadPreference as error:
            refused += 1
            unnamed += not named(error, path) or (bad_lines == "stop" and not re.search(r":\d+: ", error.message))
        else:
            assert all(preference.source.startswith(str(path)) for preference in preferences)
            n_lines = len(path.read_bytes().removesuffix(b"\n").split(b"\n"))
            skipped = [record for record in caplog.records if "bad lines of" in record.getMessage()]
            assert bad_lines == "stop" or skipped or len(preferences) == n_lines
    assert unnamed == 0
    assert bad_lines == "skip" or refused > N_FILES / 8
