"""python -m tests.parts.small_server FOLDER PORT TOKEN_S LAST_RESORT_S: the server as it is run, on the small engine.

It has a child process, as the real engine has, which is stopped. SIGUSR1 has the engine hang, and a thread of ours with
it, which nothing can cancel.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer

from idiolect_server import serve
from idiolect_server.app import create_app
from idiolect_server.engine.base import Engine, EngineConfig
from idiolect_server.settings import Settings
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, ROOT, free_port, wait_until_ready
from tests.parts.small_engine import SmallEngine

PR_SET_PDEATHSIG = 1


def stop() -> None:
    """Stopped for as long as the server lives, and not a moment longer: it may be killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGSTOP)


async def start(config: EngineConfig) -> Engine:
    engine = SmallEngine(AutoTokenizer.from_pretrained(demo_model()), token_s=float(sys.argv[3]))
    loop = asyncio.get_running_loop()
    multiprocessing.get_context("fork").Process(target=stop, daemon=True).start()

    def hang() -> None:
        engine.goes_on.clear()
        loop.run_in_executor(None, time.sleep, 60)

    loop.add_signal_handler(signal.SIGUSR1, hang)
    return engine


@contextmanager
def small_server(folder: Path, redis_url: str) -> Iterator[str]:
    """Its base URL, while it runs."""
    port = free_port()
    command = [sys.executable, "-m", "tests.parts.small_server", str(folder), str(port), "0.001", "8"]
    environment = {**os.environ, "IDIOLECT_REDIS_URL": redis_url}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    os.environ |= {
        "IDIOLECT_BUNDLE": str(DEMO_BUNDLE),
        "IDIOLECT_DATA_DIR": f"{sys.argv[1]}/data",
        "IDIOLECT_ADAPTER": "live",
        "IDIOLECT_PORT": sys.argv[2],
        "IDIOLECT_STALL_S": "10",
    }
    serve.LAST_RESORT_S = float(sys.argv[4])
    serve.create_app = lambda settings: create_app(settings, start)  # type: ignore[assignment]
    assert Settings.read().stall_s == 10
    serve.serve()
