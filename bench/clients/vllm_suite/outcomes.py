"""Stands for the `conftest` of vLLM's tests: those that ask a server run, and each writes a line of JSON."""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def zephyr_lora_files() -> str:
    return "none"


@pytest.fixture(scope="module")
def qwen3_lora_files() -> str:
    return "none"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Others are unit tests of vLLM, and would say nothing of a server."""
    asking = [item for item in items if _asks(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in asking])
    items[:] = asking


def _asks(item: pytest.Item) -> bool:
    """A server, by a fixture or of its own."""
    fixtures: tuple[str, ...] = getattr(item, "fixturenames", ())
    own = inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
    return any("server" in name or "client" in name for name in fixtures) or "RemoteOpenAIServer(" in own


def pytest_runtest_logreport(report: Any) -> None:
    """Of what was called, or failed before."""
    if report.when != "call" and report.outcome == "passed":
        return
    said = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr or ""))
    line = {"test": report.nodeid, "outcome": report.outcome, "said": said[:400]}
    with Path(os.environ["VLLM_TESTS_OUTCOMES"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
