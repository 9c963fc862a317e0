"""The page's route: what a browser may do with it, what is kept how long, and that it needs neither key nor engine."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from idiolect_server.app import create_app
from idiolect_server.door.keys import digest
from idiolect_server.page.route import NOT_BUILT, POLICY, serve_page
from idiolect_server.settings import Settings


def call(app: FastAPI, method: str, path: str, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.request(method, path, headers=headers)

    return asyncio.run(main())


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "page").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>Idiolect</title>")
    (tmp_path / "page" / "a.js").write_text("// " + 2000 * "long ")
    (tmp_path / "secret").write_text("not a part")
    return tmp_path


@pytest.fixture
def app(built: Path) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    serve_page(app, built)
    return app


def test_the_page_is_asked_for_anew_and_its_parts_are_kept(app: FastAPI):
    page, part = call(app, "GET", "/"), call(app, "GET", "/page/a.js")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    assert (part.status_code, part.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in part.headers["cache-control"]
    assert part.headers["content-encoding"] == "gzip"
    again = call(app, "GET", "/page/a.js", **{"if-none-match": part.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_browser_may_use_it_in_one_way_only(app: FastAPI):
    for path in ("/", "/page/a.js"):
        headers = call(app, "GET", path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize("path", ["/", "/page/a.js"])
def test_head_is_get_without_the_body(app: FastAPI, path: str):
    head, whole = call(app, "HEAD", path), call(app, "GET", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize(
    "path", ["/page/none.js", "/page/", "/page/../secret", "/page/%2e%2e/secret", "/page", "/index.html"]
)
def test_nothing_else_is_there(app: FastAPI, path: str):
    assert call(app, "GET", path).status_code == 404


def test_only_reading_is_possible(app: FastAPI):
    assert {call(app, method, "/").status_code for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}


def server(folder: Path, **settings: Any) -> FastAPI:
    """The whole server, still starting."""
    return create_app(Settings(bundle=folder, **settings))


def test_it_needs_no_key_and_the_api_does(tmp_path: Path):
    app = server(tmp_path, api_keys=(digest("k"),))
    assert call(app, "GET", "/").status_code == 200
    assert call(app, "GET", "/page/none.js").status_code == 404
    assert call(app, "GET", "/status").status_code == 401
    assert call(app, "GET", "/pages").status_code == 401


def test_another_name_of_the_machine_gets_no_page_without_keys(tmp_path: Path):
    assert call(server(tmp_path), "GET", "/", host="evil.example").status_code == 421


def test_it_is_no_part_of_the_api(tmp_path: Path):
    assert not [path for path in server(tmp_path).openapi()["paths"] if path == "/" or path.startswith("/page")]


def test_a_server_without_the_page_says_how_to_build_it(tmp_path: Path):
    app = FastAPI(redirect_slashes=False)
    serve_page(app, tmp_path / "nothing")
    answer = call(app, "GET", "/")
    assert (answer.status_code, answer.text) == (200, NOT_BUILT)
    assert "`make page`" in NOT_BUILT
    assert call(app, "GET", "/page/a.js").status_code == 404
