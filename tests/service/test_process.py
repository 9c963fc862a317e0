"""The server as a process of its own, on the small engine: how it ends, and what a supervisor sees of that."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from idiolect_server.engine.time_slice import SHORTEST_NS, get_turn
from tests.live import ROOT, free_port, wait_until_ready

pytestmark = pytest.mark.slow
ASKED = {"prompt": "What is a compiler?", "stream": True}
Start = Callable[..., tuple[str, "subprocess.Popen[bytes]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def go(token_s: float, last_resort_s: float = 8.0) -> tuple[str, subprocess.Popen[bytes]]:
        port = free_port()
        command = [sys.executable, "-m", "tests.parts.small_server", tmp_path, port, token_s, last_resort_s]
        started.append(subprocess.Popen([str(word) for word in command], cwd=ROOT))
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, started[-1])
        return url, started[-1]

    yield go
    for process in started:
        process.kill()
        process.wait()


def streaming(url: str) -> tuple[Thread, list[str]]:
    """A stream that has begun, and its lines as they come."""
    lines: list[str] = []

    def read() -> None:
        try:
            with httpx.stream("POST", f"{url}/generate", json=ASKED, timeout=60) as response:
                lines.extend(line for line in response.iter_lines())
        except httpx.TransportError:
            lines.append("cut")

    thread = Thread(target=read)
    thread.start()
    time.sleep(0.5)
    return thread, lines


@pytest.mark.skipif(get_turn(0) == 0, reason="this Linux does not know of shorter turns (6.12 and later)")
def test_its_redis_answers_as_soon_as_it_does(start: Start):
    server = psutil.Process(start(0.01)[1].pid)
    (redis,) = (child for child in server.children() if "redis" in child.name())
    assert {get_turn(thread.id) for one in (server, redis) for thread in one.threads()} == {SHORTEST_NS}


def test_a_signal_lets_streams_finish_and_is_what_the_process_ends_by(start: Start):
    url, process = start(0.1)
    thread, lines = streaming(url)
    process.send_signal(signal.SIGTERM)
    thread.join()
    assert "event: done" in lines
    assert process.wait(5) == -signal.SIGTERM


def test_a_second_signal_ends_it_at_once(start: Start):
    url, process = start(1.0)
    thread, lines = streaming(url)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == -signal.SIGTERM
    thread.join()
    assert lines[-1] == "cut"
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_an_engine_that_hangs_ends_it_with_1_whatever_its_threads_do(start: Start):
    url, process = start(0.1, last_resort_s=3.0)
    thread, lines = streaming(url)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGUSR1)
    hung = time.monotonic()
    while (ready := httpx.get(f"{url}/health/ready")).status_code == 200:
        assert time.monotonic() - hung < 10
        time.sleep(0.1)
    assert ready.json() == {"status": "stalled"}
    assert process.wait(30) == 1
    assert time.monotonic() - hung < 25
    assert not psutil.wait_procs(children, timeout=5)[1]
    thread.join()
    assert "event: error" in lines
    assert any("engine_dead" in line for line in lines)
