"""Each command of docs/http-api.md can be copied into a shell, in the order of the page."""

import asyncio
import re
import subprocess

from tests.live import ROOT
from tests.parts.service import Service

PAGE = ROOT / "docs" / "http-api.md"
BASE = "B=http://127.0.0.1:8000\n"


def test_every_route_has_a_command_that_works(run):
    script = "".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S))
    assert script.startswith(BASE)

    async def check(running: Service) -> None:
        commands = script.replace(BASE, f"B={running.http.base_url}\n").replace("curl -s", "curl --fail-with-body -s")
        bash = ["bash", "-euo", "pipefail", "-c", commands]
        done = await asyncio.to_thread(subprocess.run, bash, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout[-2000:]

    run(check)
    headings = "\n".join(re.findall(r"^## .*$", PAGE.read_text(), re.M))
    for route in re.findall(r"(?:GET|POST|PUT|DELETE) (/[a-z0-9/_{}]+)", headings):
        pattern = re.sub(r"\{\w+\}", "[^/ ]+", route)
        assert re.search(rf"\$B{pattern}[\s\"?]", script), route
