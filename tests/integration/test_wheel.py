"""Idiolect installed from its wheel, in an application that has folders named `server` and `training` itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live import DEMO_BUNDLE, ROOT, free_port, start_server, wait_until_ready

FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
PARTS = (*FILES, "idiolect", "server", "training/idiolect_training", "clients/cli", "clients/web")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "built")
WITHOUT_PAGE = {"IDIOLECT_WHEEL_WITHOUT_PAGE": "1"}
WHERE = """
import importlib.metadata as m, idiolect_server, idiolect_training, idiolect
plugin, = m.entry_points(group="vllm.general_plugins", name="idiolect_user_tokens")
print(idiolect.__file__, idiolect_server.__file__, idiolect_training.__file__, plugin.load().__code__.co_filename)
"""


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
WHEEL = (*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / part, target)
    return folder


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the wheel is installed; without the page where npm is absent."""
    folder, more = tmp_path_factory.mktemp("wheel"), {} if shutil.which("npm") else WITHOUT_PAGE
    run(*WHEEL, "-w", folder, source, env={**os.environ, **more})
    (wheel,) = folder.glob("idiolect-*.whl")
    run(*PIP, "install", "-q", "--no-deps", "--target", folder / "site", wheel)
    return folder / "site"


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A folder with packages of the same names as our folders, which must never be imported."""
    for name in ("server", "training", "clients", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the application has its own')\n")
    return tmp_path


def test_the_wheel_has_our_packages_and_nothing_else(installed: Path):
    found = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert found == {"idiolect", "idiolect_server", "idiolect_training", "idiolect_cli", "bin"}


@pytest.mark.skipif(not shutil.which("npm"), reason="THE PAGE OF THE WHEEL WAS NOT TRIED: npm is not installed")
def test_the_wheel_has_the_page(installed: Path):
    built = installed / "idiolect_server" / "page" / "built"
    page = (built / "index.html").read_text()
    parts = re.findall(r'(?:src|href)="\./(page/[^"]+)"', page)
    assert {Path(part).suffix for part in parts} == {".js", ".css", ".svg"}
    assert [part for part in parts if not (built / part).is_file()] == []


def test_a_wheel_without_npm_is_an_error_in_words(source: Path, tmp_path: Path):
    python = Path(sys.executable).parent
    done = subprocess.run(
        [str(part) for part in (*WHEEL, "-w", tmp_path, source)],
        env={"PATH": str(python), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "carries a page that npm builds" in done.stdout + done.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_a_wheel_serves_beside_an_application_with_folders_of_the_same_names(
    installed: Path, application: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, evidence
):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    found = run(sys.executable, "-c", WHERE, cwd=application, env=dict(os.environ)).split()
    assert all(Path(file).is_relative_to(installed) for file in found), found
    port = free_port()
    with (application / "log").open("wb") as log:
        process = start_server(port, log, application, bundle=str(DEMO_BUNDLE))
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            request = {"user_id": "short-list-warm-1", "prompt": "What is a compiler?", "max_tokens": 8}
            answer = httpx.post(f"http://127.0.0.1:{port}/generate", json=request, timeout=120).json()
        finally:
            process.terminate()
            process.wait(60)
    assert answer["personalization"]["state"] == "stored"
    assert answer["usage"]["completion_tokens"] > 0
    evidence("R1", {"packages_from_the_wheel": len(found), "served": True})
