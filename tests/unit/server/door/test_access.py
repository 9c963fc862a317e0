"""What stands before every route: names of this machine, sizes of bodies, ids that would not arrive, no redirects."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from idiolect_server.app import create_app
from idiolect_server.door.access import SHORT_BODY_BYTES
from idiolect_server.door.keys import digest
from idiolect_server.settings import Settings


def call(folder: Path, method: str, path: str, base: str = "http://localhost", **more: Any) -> httpx.Response:
    """The answer of a server that is still starting."""
    settings = Settings(bundle=folder, **more.pop("settings", {}))

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            return await http.request(method, path, **more)

    return asyncio.run(main())


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]:8000"]
)
def test_without_keys_this_machines_names_are_answered(tmp_path: Path, host: str):
    assert call(tmp_path, "GET", "/health/live", headers={"Host": host}).status_code == 200
    assert code(call(tmp_path, "GET", "/status", headers={"Host": host})) == (503, "not_ready")


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example"),
        *("", "evil.example:8000", "10.0.0.1", "[::2]", "localhost:80:80", "0.0.0.0", "xlocalhost", "localhost, evil"),
    ],
)
def test_without_keys_other_names_are_not(tmp_path: Path, host: str):
    for path in ("/health/live", "/status", "/generate"):
        assert code(call(tmp_path, "GET", path, headers={"Host": host})) == (421, "unknown_host")
    with_keys = {"host": "0.0.0.0", "api_keys": (digest("k"),)}
    allowed = call(tmp_path, "GET", "/health/live", headers={"Host": host}, settings=with_keys)
    assert allowed.status_code == 200


@pytest.mark.parametrize(
    ("path", "longest"), [("/generate", 1 << 20), ("/v1/chat/completions", 1 << 20), ("/feedback", SHORT_BODY_BYTES)]
)
def test_each_route_has_its_longest_body(tmp_path: Path, path: str, longest: int):
    for n_bytes, is_long in ((longest, False), (longest + 1, True)):
        assert (code(call(tmp_path, "POST", path, content=b"x" * n_bytes)) == (413, "body_too_large")) == is_long

        async def pieces(n_bytes: int = n_bytes) -> Any:
            yield b"x" * n_bytes

        assert (code(call(tmp_path, "POST", path, content=pieces())) == (413, "body_too_large")) == is_long
    smaller = {"max_body_bytes": 2000}
    assert code(call(tmp_path, "POST", path, content=b"x" * 2001, settings=smaller)) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/health/live/", "/generate/", "/status/", "/v1/models/", "//evil.example/%2e%2e"])
def test_nobody_is_sent_elsewhere(tmp_path: Path, path: str):
    with_keys = {"api_keys": (digest("k"),)}
    headers = {"Host": "evil.example", "Authorization": "Bearer k"}
    assert code(call(tmp_path, "GET", path, headers=headers, settings=with_keys)) == (404, "not_found")


@pytest.mark.parametrize("user_id", ["x/../victim", "..", ".", "a//b", "/x", "x/", "%2e%2e", "x\\..\\y"])
def test_ids_that_do_not_arrive_are_refused_on_every_route(tmp_path: Path, user_id: str):
    path = "/users/" + quote(user_id, safe="").replace(".", "%2E")
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/question"), ("DELETE", "/votes/1-1-1")):
        assert code(call(tmp_path, method, path + rest)) == (422, "invalid_request")
    assert code(call(tmp_path, "PUT", path + "/profile", json={"profile": "x"})) == (422, "invalid_request")
    vote = {"user_id": user_id, "prompt": "p", "chosen": "a", "rejected": "b"}
    assert code(call(tmp_path, "POST", "/feedback", json=vote)) == (422, "invalid_request")
    assert code(call(tmp_path, "POST", "/generate", json={"user_id": user_id, "prompt": "p"})) == (
        422,
        "invalid_request",
    )
