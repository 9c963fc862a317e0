"""Fixtures with real parts: the demo model, the demo bundle, Redis, a server. And where evidence is recorded."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

# One thread for each process that computes, on any core. Threads that wait for one another at each step, each bound to
# its core, stand still whenever something else has one of the cores: seconds for a step of milliseconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from bench.catalogue import find
from bench.results import record
from idiolect.bundle import Bundle
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, Redis, memory_folder, running_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--evidence", action="store_true", help="keep what the tests measure in bench/history.jsonl")


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> None:
    for name in list(os.environ):
        if name.startswith("IDIOLECT_") and name != "IDIOLECT_CACHE_DIR":
            del os.environ[name]


@pytest.fixture(scope="session")
def model_path() -> Path:
    return demo_model()


@pytest.fixture(scope="session")
def demo_bundle() -> Bundle:
    return Bundle.read(DEMO_BUNDLE)


FOUND = pytest.StashKey[dict[str, tuple[dict[str, object], str]]]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Only now: a test compares the page of results with the history."""
    if session.config.getoption("--evidence"):
        for line_id, (value, command) in session.config.stash.get(FOUND, {}).items():
            record(line_id, value, command)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts or "[vllm" in item.name:
            item.add_marker("engine")


Evidence = Callable[..., None]


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """evidence(id, value): a line of bench/tested.py is kept when --evidence is given, and checked either way."""
    test = request.node.nodeid.split("[")[0]

    def keep(line_id: str, value: dict[str, object], checked: bool = True, environment: str = "") -> None:
        # Not what a busy machine decides, such as seconds.
        assert not checked or all(goal.met(value) for goal in find(line_id)[1].goals), (line_id, value)
        found = request.config.stash.setdefault(FOUND, {})
        found[line_id] = (value, f"make setup model && {environment}.venv/bin/python -m pytest --evidence {test}")

    return keep


@dataclass
class Live:
    """A running server with its own Redis."""

    url: str
    http: httpx.Client
    redis: Redis
    pid: int

    def generate(self, **request: object) -> dict[str, object]:
        response = self.http.post("/generate", json=request)
        assert response.status_code == 200, response.text
        answer: dict[str, object] = response.json()
        return answer


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on which Redis's fsync takes no time."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Live]:
    """One server for the whole session: the demo bundle, merged, no keys, Redis beside it."""
    folder = tmp_path_factory.mktemp("live")
    with memory_folder() as memory, (folder / "server.log").open("wb") as log:
        redis = Redis(memory)
        redis.start()
        try:
            settings = {"redis_url": redis.url, "data_dir": str(folder / "data")}
            with (
                running_server(log, **settings) as (url, process),
                httpx.Client(base_url=url, timeout=120) as http,
            ):
                yield Live(url, http, redis, process.pid)
        finally:
            redis.stop()


def read_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
