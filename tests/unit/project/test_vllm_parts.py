"""What we take of vLLM is on a page, all of it is there in the version that is installed, and few files take it."""

import ast
import importlib
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from tests.live import ROOT

ENGINE = ROOT / "server" / "idiolect_server" / "engine"
SECTION = (ROOT / "docs" / "engine.md").read_text().split("## What we take of vLLM")[1].split("\n## ")[0]
LISTED = {
    file: re.findall(r"`(vllm[\w.]+)`", parts)
    for file, parts in re.findall(r"^\| `([\w/]+\.py)` \| (.*) \|$", SECTION, re.M)
}


def taken(path: Path) -> set[str]:
    """What a file imports of vLLM, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vllm"}
    return found


def test_the_page_lists_what_each_file_takes():
    files = {path.relative_to(ENGINE).as_posix(): taken(path) for path in sorted(ENGINE.rglob("*.py"))}
    assert LISTED.keys() == {file for file, parts in files.items() if parts}
    for file, parts in LISTED.items():
        # Beyond a name that is imported, a part of it may be listed that is replaced, or called.
        assert {part for part in files[file] if not any(f"{one}.".startswith(f"{part}.") for one in parts)} == set()
        assert {one for one in parts if not any(f"{one}.".startswith(f"{part}.") for part in files[file])} == set()


@pytest.mark.parametrize("part", sorted({part for parts in LISTED.values() for part in parts}))
def test_each_is_there(part: str):
    assert found(part) is not None


def found(part: str) -> Any:
    """A module, or a name in one, or a part of such."""
    names = part.split(".")
    for n_names in range(len(names), 0, -1):
        try:
            module = importlib.import_module(".".join(names[:n_names]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, names[n_names:], module)
    return None
