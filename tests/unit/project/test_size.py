"""Someone new finds a room by reading the tree: files and folders stay small, and exceptions have reasons."""

from pathlib import Path

from tests.live import ROOT

MAX_LINES, MAX_FILES = 250, 16
ROOMS = ("idiolect", "server", "training", "clients", "bench", "tests")
LONG = {
    "idiolect/inference/priors.py": "three priors of the same five verbs, to be compared line by line",
    "server/idiolect_server/errors.py": "one tree of errors, and the one table of their statuses",
    "server/idiolect_server/store/store.py": "the scripts that must be one step are beside what calls them",
    "clients/python/idiolect_client/async_client.py": "a method for each route, with what it raises",
    "clients/python/idiolect_client/client.py": "a method for each route, with what it raises",
    "training/idiolect_training/fit/loop.py": "a run reads from top to bottom",
    "tests/integration/test_bad_input.py": "one list of hostile inputs against one server",
    "tests/integration/test_learning.py": "one server, whose start takes longer than all the tests",
    "tests/parts/changed_bundles.py": "one changed bundle after another, side by side",
    "tests/parts/chat_templates.py": "one template after another, side by side",
    "tests/parts/hostile_forms.py": "one list of hostile inputs, side by side",
    "tests/unit/client/test_client.py": "one scripted server for every way in which a call can end",
    "tests/unit/training/data/test_formats.py": "seven published forms, a section each",
    "tests/unit/training/test_training.py": "one tiny model, whose making takes longer than most tests",
}
CROWDED: dict[str, str] = {}


def sources() -> list[Path]:
    found = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(found) > 150
    return found


def test_no_file_is_long_without_a_reason():
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources()}
    assert {name for name, n in lines.items() if n > MAX_LINES} == LONG.keys()


def test_no_folder_is_crowded_without_a_reason():
    folders = {path.parent for path in sources()}
    n_files = {
        folder.relative_to(ROOT).as_posix(): sum(path.suffix in (".py", ".txt", ".jsonl") for path in folder.iterdir())
        for folder in folders
    }
    assert {name for name, n in n_files.items() if n > MAX_FILES} == CROWDED.keys()


def test_the_places_that_contributing_names_exist():
    table = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    places = [line.split("|")[2].strip().strip("`") for line in table[2:]]
    assert len(places) >= 12
    assert [place for place in places if not (ROOT / place).is_file()] == []
