"""The processes of an engine: their threads, and what is left of them."""

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from idiolect_server.engine.launch import INTEL_OPENMP
from idiolect_server.engine.time_slice import SHORTEST_NS, get_turn
from tests.conftest import Live
from tests.integration.engine.conftest import Running
from tests.live import ROOT
from tests.parts.tiny import tiny_model

ENDS_S = 5


@pytest.mark.skipif(not INTEL_OPENMP.exists(), reason="vLLM comes with Intel's OpenMP for x86 only")
def test_the_engine_computes_with_intels_openmp(running: Running):
    """It is loaded into vLLM's process, one an engine, before PyTorch brings another, though nobody asked for it."""
    engines = [child for child in psutil.Process().children(recursive=True) if child.name().startswith("VLLM::")]
    assert {engine.name() for engine in engines} == {"VLLM::EngineCore"}
    for engine in engines:
        assert str(INTEL_OPENMP) in {part.path for part in engine.memory_maps()}


@pytest.mark.skipif(get_turn(0) == 0, reason="this Linux does not know of shorter turns (6.12 and later)")
def test_who_answers_goes_before_who_computes(live: Live):
    """Each thread of the server has short turns, and none of the engine's."""
    server = psutil.Process(live.pid)
    assert {get_turn(thread.id) for thread in server.threads()} == {SHORTEST_NS}
    (engine,) = (child for child in server.children() if child.name().startswith("VLLM::"))
    assert {get_turn(thread.id) for thread in engine.threads()} == {get_turn(0)}


SERVER = """
import os, sys, time
from vllm.engine.arg_utils import AsyncEngineArgs
from idiolect_server.engine.base import EngineConfig
from idiolect_server.engine.launch import engine_args, start_vllm
from idiolect_server.scratch import scratch

def main(model, method):
    create = AsyncEngineArgs.create_engine_config
    def then_switch(self, *args, **more):
        config = create(self, *args, **more)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = method  # on a CPU, vLLM has just set it to spawn
        return config
    AsyncEngineArgs.create_engine_config = then_switch
    with scratch():
        engine = start_vllm(engine_args(EngineConfig(model, max_model_len=256, max_num_seqs=4)))
        print("the engine is up", flush=True)
        time.sleep(600)
        engine.shutdown()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


METHODS = ("spawn", "fork")


@dataclass
class Started:
    """A server in a process of its own, whose temporary files are in a folder of its own."""

    temporary: Path
    process: subprocess.Popen[str]
    children: list[psutil.Process]

    def left(self, shared: set[str]) -> list[Any]:
        """Of its processes, files and sockets, and of `shared` memory."""
        alive = [child for child in self.children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        pids = {str(process.pid) for process in [self.process, *self.children]}
        mine = [name for name in shared if pids & set(re.findall(r"\d+", name))]
        return [*alive, *self.temporary.iterdir(), *mine]


def test_nothing_is_left_of_a_killed_server(tmp_path: Path, model_path: Path, evidence):
    """U2: within five seconds, in both ways in which vLLM starts its engine."""
    (tmp_path / "server.py").write_text(SERVER)
    command = [sys.executable, str(tmp_path / "server.py"), str(tiny_model(tmp_path / "model", model_path, 64))]
    before, servers = set(os.listdir("/dev/shm")), dict[str, Started]()
    for method in METHODS:  # both start at the same time
        temporary = Path(tempfile.mkdtemp())  # pytest's own are too long for a socket
        environment = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen([*command, method], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        servers[method] = Started(temporary, process, [])
    for server in servers.values():
        assert server.process.stdout is not None
        seen = list(itertools.takewhile(lambda line: "the engine is up" not in line, server.process.stdout))
        assert server.process.poll() is None, seen
        server.children = psutil.Process(server.process.pid).children(recursive=True)
        assert any(child.name().startswith("VLLM::") for child in server.children)
        assert any(path.is_socket() for path in server.temporary.glob("*/*"))
    left = {}
    for method, server in servers.items():
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        deadline = time.monotonic() + ENDS_S
        while server.left(set(os.listdir("/dev/shm")) - before) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.left(set(os.listdir("/dev/shm")) - before) == [], method
        server.temporary.rmdir()
        left[method] = 0
    evidence("U2", {"left_after_5_s": left})
