"""Real parts for tests, demo and benchmarks: a Redis process and a server process, started and stopped here."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from server.store.embedded import DURABLE, redis_server

ROOT = Path(__file__).parent.parent
DEMO_BUNDLE = ROOT / "training" / "runs" / "demo" / "bundle"
READY_TIMEOUT_S = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Redis:
    """A redis-server on a loopback port, durable as docker/compose.yaml runs it."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *DURABLE]
        self.process = subprocess.Popen([redis_server(), *arguments, "--loglevel", "warning"])
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        """SIGKILL: no chance to write anything on the way out."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@contextmanager
def running_server(log: IO[bytes] | int, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server process with IDIOLECT_* `settings`, ready to answer: its base URL and the process."""
    port = free_port()
    process = start_server(port, log, **settings)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def start_server(port: int, log: IO[bytes] | int, **settings: str) -> subprocess.Popen[bytes]:
    """A server process on `port`, not yet ready."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("IDIOLECT_")}
    if cache := os.environ.get("IDIOLECT_CACHE_DIR"):
        env["IDIOLECT_CACHE_DIR"] = cache
    env |= {"IDIOLECT_BUNDLE": str(DEMO_BUNDLE), "IDIOLECT_PORT": str(port), "VLLM_LOGGING_LEVEL": "WARNING"}
    env |= {f"IDIOLECT_{name.upper()}": value for name, value in settings.items()}
    return subprocess.Popen([sys.executable, "-m", "server"], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], path: str = "/health/ready") -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it was ready")
        try:
            if httpx.get(f"{url}{path}", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the server was not ready after {READY_TIMEOUT_S} s")
