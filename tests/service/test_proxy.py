"""docker/nginx.conf before the service: streams come as they are made, ids arrive as they were sent, halves do not."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from idiolect_server.door.keys import digest
from tests.live import ROOT, free_port
from tests.parts.service import Service, service
from tests.parts.small_engine import LONGEST, SmallEngine

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
NAME, KEY = "idiolect.example", "idk-for-tests-only"

SNI = {"sni_hostname": NAME}

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")


@asynccontextmanager
async def proxied(folder: Path, model: Path, token_s: float = 0.0) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """The service, and a client of the nginx before it. Only ports, paths and the ten seconds are not the file's."""
    engine = SmallEngine(AutoTokenizer.from_pretrained(model), token_s=token_s)
    async with service(engine, host="0.0.0.0", api_keys=(digest(KEY),)) as running:
        port, certificate, key = free_port(), folder / "fullchain.pem", folder / "privkey.pem"
        make = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-newkey", "ec", "-pkeyopt"]
        make += ["ec_paramgen_curve:P-256", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
        subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        text = (ROOT / "docker" / "nginx.conf").read_text()
        for theirs, ours in {
            "443": str(port),
            "127.0.0.1:8000": f"127.0.0.1:{running.http.base_url.port}",
            "/etc/ssl/idiolect.example": str(folder),
            "/var/log/nginx/error.log": str(folder / "error.log"),
            "_timeout 10s": "_timeout 1s",
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        (folder / "nginx.conf").write_text(text)
        how = f"daemon off; pid {folder}/pid; {'user root;' if os.geteuid() == 0 else ''}"
        command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", how]
        assert b"syntax is ok" in subprocess.run([*command, "-t"], capture_output=True, check=True).stderr
        nginx = subprocess.Popen(command)
        try:
            trust = ssl.create_default_context(cafile=str(certificate))
            headers = {"Authorization": f"Bearer {KEY}", "Host": NAME}
            async with httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{port}", headers=headers, verify=trust, timeout=20
            ) as http:
                for _ in range(100):
                    try:
                        assert (await http.get("/health/ready", extensions=SNI)).status_code == 200
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.05)
                yield running, http
        finally:
            nginx.terminate()
            nginx.wait()


def run(check: Any, *args: Any) -> None:
    async def main() -> None:
        async with proxied(*args) as (running, http):
            await check(running, http)

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
def test_events_come_as_they_are_made(tmp_path: Path, model_path: Path, path: str):
    async def check(running: Service, http: httpx.AsyncClient) -> None:
        asked = {"messages": [{"role": "user", "content": "What is a compiler?"}], "stream": True}
        came = []
        async with http.stream("POST", path, json=asked, extensions=SNI) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    came.append(asyncio.get_running_loop().time())
        assert len(came) > LONGEST
        # They took a second to be made: held back, they would come together.
        assert came[-1] - came[1] > 0.5

    run(check, tmp_path, model_path, 0.05)


def test_ids_arrive_as_they_were_sent(tmp_path: Path, model_path: Path):
    async def check(running: Service, http: httpx.AsyncClient) -> None:
        for sent, user_id in {
            "a%2Fb": "a/b",
            "a/b": "a/b",
            "%C3%A9%20x": "é x",
            "100%25": "100%",
            "a%3Fb": "a?b",
        }.items():
            answer = await http.get(f"/users/{sent}", extensions=SNI)
            assert (answer.status_code, answer.json()["user_id"]) == (200, user_id)
        for sent in ("x%2F..%2Fvictim", "%2E%2E", "x%2F%2E%2E%2Fvictim", "a%2F%2Fb"):
            refused = await http.delete(f"/users/{sent}", extensions=SNI)
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")

    run(check, tmp_path, model_path)


def test_halves_end_at_the_proxy(tmp_path: Path, model_path: Path):
    async def check(running: Service, http: httpx.AsyncClient) -> None:
        trust = ssl.create_default_context(cafile=str(tmp_path / "fullchain.pem"))
        before = len(running.server.server_state.connections)
        half = f"POST /generate HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {KEY}\r\n"
        for piece in ("", half, f"{half}Content-Length: 1000\r\n\r\n{{"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", http.base_url.port, ssl=trust, server_hostname=NAME
            )
            writer.write(piece.encode())
            with suppress(ConnectionResetError):
                said = await asyncio.wait_for(reader.read(), 10)
                assert said == b"" or said.startswith(b"HTTP/1.1 408 ")
            assert len(running.server.server_state.connections) <= before
            assert running.app.state.closing.n_running == 0
            writer.close()

    run(check, tmp_path, model_path)


def test_other_names_long_bodies_and_too_many_connections_end_there_too(tmp_path: Path, model_path: Path):
    async def check(running: Service, http: httpx.AsyncClient) -> None:
        trust = ssl.create_default_context(cafile=str(tmp_path / "fullchain.pem"))
        port = http.base_url.port
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="evil.example")
        long = await http.post("/generate", content=b"x" * (1 << 21), extensions=SNI)
        assert long.status_code == 413
        asked = {"prompt": "What is a compiler?"}
        statuses = []

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=http.base_url, headers=http.headers, verify=trust, timeout=20) as one:
                statuses.append((await one.post("/generate", json=asked, extensions=SNI)).status_code)

        await asyncio.gather(*(ask() for _ in range(80)))
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 64

    run(check, tmp_path, model_path, 0.1)
