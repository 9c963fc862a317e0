"""A browser, the page as it is built from this tree, and a service that has it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.page import build
from tests.page.served import Served, served
from tests.page.window import Window, chromium, window

Opens = Callable[..., Window]


@pytest.fixture(scope="session")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the page, built anew."""
    if shutil.which("npm") is None:
        pytest.skip("THE PAGE WAS NOT TRIED: npm is not installed")
    build.install()
    build.build()
    return build.ROOT / "server" / "idiolect_server" / "page" / "built"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of one file: while it is open, its event loop is this thread's, and no other can run."""
    with chromium() as found:
        if found is None:
            pytest.skip("THE PAGE WAS NOT TRIED: Chromium is not installed")
        yield found


@pytest.fixture(scope="module")
def world(built: Path, tokenizer: Any) -> Iterator[Served]:
    """One service for the tests of a file; each window is a visitor of its own."""
    with served(tokenizer) as running:
        yield running


@pytest.fixture
def opens(browser: Any) -> Iterator[Opens]:
    """opens(url, width, scheme): a window. At the end of the test none may have had anything on its console."""
    windows: list[Window] = []

    def go(url: str, width: int = 1440, scheme: str = "light", **more: Any) -> Window:
        windows.append(window(browser, url, width, scheme, **more))
        return windows[-1]

    yield go
    for one in windows:
        one.close()
    assert [message for one in windows for message in one.unexpected()] == []
