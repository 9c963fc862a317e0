"""Who may import whom: training -> idiolect <- server, and each foreign library in its own room."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.live import ROOT

HEAVY = ("torch", "vllm", "transformers", "pyarrow")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("idiolect", {"idiolect_server", "idiolect_training", "torch", "vllm", "redis", "fastapi", "transformers"}),
        ("training", {"idiolect_server", "vllm", "redis", "fastapi"}),
        ("server", {"idiolect_training", "peft"}),
        ("clients/cli", {"torch", "vllm", "redis", "fastapi"}),
        ("clients/python/idiolect_client", {"idiolect", "idiolect_server", "idiolect_training", "torch"}),
    ],
)
def test_forbidden_imports(folder: str, never: set[str]):
    for path in sources(folder):
        assert not imports(path) & never, path


@pytest.mark.parametrize(
    ("library", "room"),
    [("vllm", "server/idiolect_server/engine"), ("redis", "server/idiolect_server/store"), ("fastapi", "server")],
)
def test_each_library_has_one_room(library: str, room: str):
    for folder in ("idiolect", "server", "training", "clients"):
        for path in sources(folder):
            if library in imports(path):
                assert path.relative_to(ROOT).as_posix().startswith(room), path


def test_a_bundle_can_be_read_without_torch():
    code = "import sys; sys.modules['torch'] = None; import idiolect.bundle, idiolect.merge"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


SERVICE = "app", "serving", "wire", "reply", "releases.registry", "users.personalizer", "store.store", "routes.generate"


def test_the_service_imports_no_engine_until_it_starts_one(evidence):
    """Neither vLLM nor what it brings: routes, stores and users are tested, and commands answer, within seconds."""
    modules = ", ".join(f"idiolect_server.{name}" for name in SERVICE)
    code = f"import sys, {modules}; print([name for name in {HEAVY} if name in sys.modules])"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    taken_s = time.monotonic() - began
    assert done.stdout.strip() == "[]"
    evidence("R2", {"heavy_modules": 0, "import_s": round(taken_s, 2)}, checked=False)
