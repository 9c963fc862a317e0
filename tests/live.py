"""Real parts for tests, demo and benchmarks: a Redis process and a server process, started and stopped here."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import httpx
import redis

from idiolect_server.store.embedded import DURABLE, redis_server

ROOT = Path(__file__).parent.parent
DEMO_BUNDLE = ROOT / "training" / "runs" / "demo" / "bundle"
READY_TIMEOUT_S = 300
CLUSTER_NODE_TIMEOUT_MS = 1000
N_SLOTS = 16384
"""Of a Redis Cluster."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cluster_port() -> int:
    """A free port whose bus port, 10,000 above it, is free too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            port = random.randrange(20_000, 32_000)
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@contextmanager
def memory_folder() -> Iterator[Path]:
    """For a Redis whose disk is not the subject: an fsync takes no time in it, and on a busy disk outlasts a timeout.

    On a system without /dev/shm it is a folder on disk.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="idiolect-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@dataclass
class Redis:
    """A redis-server on a loopback port, durable as docker/compose.yaml runs it; `more` are further arguments."""

    folder: Path
    more: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *DURABLE]
        arguments += ["--loglevel", "warning", *self.more]
        self.process = subprocess.Popen([redis_server(), *arguments])
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


class Cluster:
    """A Redis Cluster on this machine: three primaries, each with a replica that takes over when it is gone."""

    N_PRIMARIES = 3

    def __init__(self, folder: Path) -> None:
        more = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(CLUSTER_NODE_TIMEOUT_MS)]
        # What a replica has missed must not keep it from taking over, nor one lost node stop all the others.
        more += ["--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no"]
        ports = [cluster_port() for _ in range(2 * self.N_PRIMARIES)]
        self.nodes = [Redis(folder / str(port), more, port) for port in ports]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        primaries, replicas = self.nodes[: self.N_PRIMARIES], self.nodes[self.N_PRIMARIES :]
        bounds = [N_SLOTS * number // self.N_PRIMARIES for number in range(self.N_PRIMARIES + 1)]
        for primary, (first, end) in zip(primaries, pairwise(bounds), strict=True):
            self.client(primary).execute_command("CLUSTER ADDSLOTS", *range(first, end))
        for number, node in enumerate(self.nodes):
            self.client(node).execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            self.client(node).execute_command("CLUSTER MEET", "127.0.0.1", primaries[0].port)
        self._wait_for("cluster_known_nodes", str(len(self.nodes)))
        for primary, replica in zip(primaries, replicas, strict=True):
            primary_id = self.client(primary).execute_command("CLUSTER MYID")
            self.client(replica).execute_command("CLUSTER REPLICATE", primary_id)
        self._wait_for("cluster_state", "ok")
        _wait(lambda: all(self.client(node).info()["master_link_status"] == "up" for node in replicas), "replication")

    def _wait_for(self, name: str, value: str) -> None:
        _wait(
            lambda: all(self.client(node).execute_command("CLUSTER INFO")[name] == value for node in self.nodes), name
        )

    def client(self, node: Redis) -> Any:
        return redis.Redis(port=node.port, decode_responses=True)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.1)


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


def start_server(port: int, log: IO[bytes] | int, cwd: Path = ROOT, /, **settings: str) -> subprocess.Popen[bytes]:
    """A server process on `port`, not yet ready."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("IDIOLECT_")}
    if cache := os.environ.get("IDIOLECT_CACHE_DIR"):
        env["IDIOLECT_CACHE_DIR"] = cache
    env |= {"IDIOLECT_BUNDLE": str(DEMO_BUNDLE), "IDIOLECT_PORT": str(port), "VLLM_LOGGING_LEVEL": "WARNING"}
    env |= {f"IDIOLECT_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "idiolect_cli", "serve"]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT)


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
