"""The docs keep up with the code: settings, routes, error codes, commands and links."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from bench.gpu import memory
from idiolect.errors import IdiolectError
from idiolect_server.app import create_app
from idiolect_server.errors import EngineDead, NotReady, Overloaded, RequestError, Stopping, StoreError
from idiolect_server.settings import Settings
from tests import settings_page
from tests.live import ROOT
from tests.unit.server.test_errors import leaves

API = (ROOT / "docs" / "http-api.md").read_text()


def test_the_settings_page_is_current():
    assert settings_page.PAGE.read_text() == settings_page.page(), "run `make docs`"


def test_every_route_is_described(tmp_path):
    app = create_app(Settings(bundle=tmp_path))
    paths = app.openapi()["paths"]
    assert len(paths) >= 7
    for path in paths:
        assert path in API, path


def test_every_code_that_a_caller_can_meet_is_described():
    met = leaves(RequestError) | leaves(StoreError) | leaves(Overloaded) | {NotReady, Stopping, EngineDead}
    for error in met:
        assert f"`{error.code}`" in API
    assert IdiolectError.code == "internal"


def test_the_readme_names_every_make_command_that_exists():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    assert {"setup", "fmt", "check", "test", "demo", "serve", "bench", "docs"} <= targets
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets, page


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_a_threat_names_a_test_that_exists_or_says_that_there_is_none():
    rows = [line for line in (ROOT / "docs" / "threats.md").read_text().splitlines() if line.startswith("| ")]
    threats = [row for row in rows if not row.startswith(("| threat |", "| --- |"))]
    assert len(threats) > 30
    for row in threats:
        tests = row.rstrip(" |").rpartition("|")[2]
        named = re.findall(r"`(tests/[^`]+)`", tests)
        assert named or tests.strip() == "none", row
        assert [name for name in named if not (ROOT / name).is_file()] == []


def test_worked_examples_in_docstrings_hold():
    n_tried = 0
    for file in sorted([*(ROOT / "idiolect").glob("*.py"), *(ROOT / "training" / "idiolect_training").rglob("*.py")]):
        if ">>>" in file.read_text():
            result = doctest.testmod(importlib.import_module(_module(file)))
            assert result.failed == 0, file
            n_tried += result.attempted
    assert n_tried >= 5


def _module(file: Path) -> str:
    """The import path of a source file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "training" else parts)


@pytest.mark.parametrize("name", ["one_gpu", "several_gpus"])
def test_accelerate_takes_the_launch_files(name):
    config = load_config_from_file(str(ROOT / "training" / "launch" / f"{name}.yaml"))
    assert config.num_processes == {"one_gpu": 1, "several_gpus": 8}[name]
    assert config.mixed_precision == "no"


def test_the_table_of_gpu_memory_is_what_the_arithmetic_says():
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert page.split("<!-- memory -->\n")[1].split("<!-- /memory -->")[0] == memory.table()
