"""The docs keep up with the code: settings, routes, error codes, commands and links."""

import json
import re

import pytest

from idiolect.errors import IdiolectError
from server.app import create_app
from server.errors import EngineDead, NotReady, RequestError, StoreUnavailable
from server.settings import Settings
from tests import settings_page
from tests.live import ROOT
from tests.unit.test_errors import leaves

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
    for error in leaves(RequestError) | {StoreUnavailable, NotReady, EngineDead}:
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


def test_evidence_rows_are_whole():
    rows = json.loads((ROOT / "docs" / "evidence.json").read_text())
    for row in rows:
        assert row.keys() == {"id", "value", "threshold", "command", "machine", "commit", "date"}
    assert len({row["id"] for row in rows}) == len(rows)
