"""make heart (H3): the engine is stopped, killed, or made to loop, 20 times in a row, and the server is told to stop.

A supervisor of a few lines starts the server whenever it has ended, as Docker or systemd would. Each time streams of
both APIs are open and requests half sent. A plugin, as vLLM loads them, lets the engine's own thread be held in C code,
where no Python is heard any more. The model is tiny and random.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.hostile.streams import Crowd
from bench.results import record
from idiolect_training.demo_model import demo_model
from tests.live import Redis, free_port, start_server, wait_until_ready
from tests.parts.tiny import tiny_bundle

ROUNDS, STREAMS = 20, 8
FAULTS = {"stopped": signal.SIGSTOP, "killed": signal.SIGKILL, "looping": signal.SIGUSR1}
PLUGIN = """
import signal, threading

def register():
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda *_: sum(iter(int, 1)))
"""


class Supervisor:
    """Starts the server again whenever it ends."""

    def __init__(self, port: int, log: Any, settings: dict[str, str]) -> None:
        self._arguments = port, log, settings
        self.url = f"http://127.0.0.1:{port}"
        self.status: int | None = None
        """That the process before this one ended with."""
        self.process = self._start()
        self._over = False
        threading.Thread(target=self._supervise, daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        port, log, settings = self._arguments
        return start_server(port, log, **settings)

    def _supervise(self) -> None:
        while not self._over:
            self.status = self.process.wait()
            if not self._over:
                self.process = self._start()

    def stop(self) -> None:
        self._over = True
        self.process.kill()
        self.process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def engine_of(server: int) -> psutil.Process:
    """The process that computes, by the name that vLLM gives it."""
    children = psutil.Process(server).children(recursive=True)
    return next(child for child in children if child.name().startswith("VLLM::"))


def fault(supervisor: Supervisor, kind: str) -> dict[str, Any]:
    """One round: seconds until not ready, until gone, until ready again; exit status; how the streams ended."""
    process = supervisor.process
    with Crowd(supervisor.url, STREAMS) as crowd:
        engine_of(process.pid).send_signal(FAULTS[kind])
        began = time.monotonic()
        while is_ready(supervisor.url):
            time.sleep(0.1)
        not_ready_s = time.monotonic() - began
        while process.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.05)
        gone_s = time.monotonic() - began
        ends = crowd.ends()
    while supervisor.process is process:
        time.sleep(0.05)
    wait_until_ready(supervisor.url, supervisor.process)
    again_s = time.monotonic() - began - gone_s
    return {
        "not_ready_s": round(not_ready_s, 2),
        "gone_s": round(gone_s, 2),
        "ready_again_s": round(again_s, 1),
        "status": process.returncode,
        "ends": ends,
    }


def told_to_stop(port: int, log: Any, settings: dict[str, str], drain_s: float) -> dict[str, Any]:
    """SIGTERM while 20 streams are open: how each ended, and how much longer than their time the process took."""
    process = start_server(port, log, **settings, drain_s=str(drain_s))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        with Crowd(url, 20) as crowd:
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            process.wait(120)
            took_s = time.monotonic() - began
            ends = Counter(crowd.ends())
    finally:
        process.kill()
        process.wait()
    return {
        "ends": dict(ends),
        "without_a_reason": sum(ends.values()) - ends["whole"] - ends["told"],
        "took_s": round(took_s, 2),
        "beyond_their_time_s": round(max(0.0, took_s - drain_s), 2),
        "status": process.returncode,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        plugin = folder / "plugin" / "held-0.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: held\nVersion: 0\n")
        (plugin / "entry_points.txt").write_text("[vllm.general_plugins]\nheld = held:register\n")
        (plugin.parent / "held.py").write_text(PLUGIN)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(plugin.parent), os.environ.get("PYTHONPATH", "")])
        bundle, model, _ = tiny_bundle(folder, demo_model())
        store = Redis(folder / "redis")
        store.start()
        stack.callback(store.stop)
        log = stack.enter_context((folder / "server.log").open("wb"))
        settings = {"bundle": str(bundle.path), "model": str(model), "redis_url": store.url}
        settings |= {"cache_dir": str(folder / "cache")}
        port = free_port()
        sigterm = {
            "finish_in_time": told_to_stop(port, log, settings, 30),
            "are_cut_short": told_to_stop(port, log, settings, 1),
        }
        sys.stderr.write(f"{sigterm}\n")
        supervisor = Supervisor(port, log, settings)
        stack.callback(supervisor.stop)
        wait_until_ready(supervisor.url, supervisor.process)
        rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FAULTS}
        for number in range(ROUNDS):
            kind = list(FAULTS)[number % len(FAULTS)]
            rounds[kind].append(fault(supervisor, kind))
            sys.stderr.write(f"{number + 1} {kind}: {rounds[kind][-1]}\n")
    every = [one for kind in rounds.values() for one in kind]
    ends = Counter(end for one in every for end in one["ends"])
    value = {
        "rounds": len(every),
        "exit_status_1": sum(one["status"] == 1 for one in every),
        "back": len(every),  # the next round begins when it is
        **{
            name: {kind: [one[name] for one in found] for kind, found in rounds.items()}
            for name in ("not_ready_s", "gone_s", "ready_again_s")
        },
        "streams": dict(ends),
        "without_a_reason": sum(ends.values()) - ends["whole"] - ends["told"],
        "sigterm": sigterm,
    }
    record("H3", value)


if __name__ == "__main__":
    main()
