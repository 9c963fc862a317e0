"""Names of requests, and web pages of other origins."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from idiolect_server.app import create_app
from idiolect_server.door.keys import digest
from idiolect_server.door.request_id import InLogs
from idiolect_server.errors import SettingsError
from idiolect_server.settings import Settings
from tests.unit.server.door.test_access import call

PAGE = "https://app.example.com"
KEYS = {"host": "0.0.0.0", "api_keys": (digest("k"),)}


@pytest.mark.parametrize("path", ["/health/live", "/status", "/nope", "/generate", "/v1/chat/completions"])
def test_every_answer_carries_its_name(tmp_path: Path, path: str):
    assert call(tmp_path, "GET", path, headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert call(tmp_path, "GET", path).headers["x-request-id"].startswith("req-")
    unauthorized = call(tmp_path, "GET", path, headers={"X-Request-Id": "abc-1"}, settings=KEYS)
    assert unauthorized.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("odd", ["a b", "x" * 129, "a\tb", "é", "", "a;b", "%0a"])
def test_an_odd_name_is_replaced(tmp_path: Path, odd: str):
    answer = call(tmp_path, "GET", "/health/live", headers={"X-Request-Id": odd.encode()})
    assert answer.headers["x-request-id"].startswith("req-")


def test_a_mistake_of_ours_has_a_name_too(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("idiolect_server.routes.version._engine", lambda: 1 / 0)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(Settings(bundle=tmp_path)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.get("/version", headers={"X-Request-Id": "abc-1"})

    answer = asyncio.run(main())
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "abc-1")


def test_lines_of_the_log_have_it():
    record = logging.LogRecord("x", logging.INFO, "f", 1, "m", (), None)
    assert InLogs().filter(record)
    assert record.request == ""  # type: ignore[attr-defined]


def preflight(folder: Path, **settings: object) -> httpx.Response:
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    return call(folder, "OPTIONS", "/v1/chat/completions", headers=headers, settings=settings)


def test_pages_of_other_origins_are_let_in_only_by_name(tmp_path: Path):
    assert "access-control-allow-origin" not in preflight(tmp_path).headers
    assert preflight(tmp_path, cors_origins=("https://other.example.com",), **KEYS).status_code == 400
    allowed = preflight(tmp_path, cors_origins=(PAGE,), **KEYS)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]


def test_a_page_needs_the_key_and_may_read_the_answer(tmp_path: Path):
    settings = {"cors_origins": (PAGE,), **KEYS}
    refused = call(tmp_path, "GET", "/status", headers={"Origin": PAGE}, settings=settings)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-Id" in refused.headers["access-control-expose-headers"]
    for key in ({"Authorization": "Bearer k"}, {"X-Api-Key": "k"}):
        known = call(tmp_path, "GET", "/status", headers={"Origin": PAGE, **key}, settings=settings)
        assert known.json()["error"]["code"] == "not_ready"
    assert call(tmp_path, "GET", "/status", headers={"X-Api-Key": "other"}, settings=settings).status_code == 401


@pytest.mark.parametrize(
    "odd", ["app.example.com", "https://a.example/", "https://a.example/x", "null", "https://*.x", "*"]
)
def test_odd_origins_stop_the_start(odd: str, monkeypatch):
    monkeypatch.setenv("IDIOLECT_BUNDLE", "x")
    assert Settings.read().cors_origins == ()
    monkeypatch.setenv("IDIOLECT_CORS_ORIGINS", odd)
    with pytest.raises(SettingsError, match=r"CORS_ORIGINS|api_keys is required"):
        Settings.read()
