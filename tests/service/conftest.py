"""Services for the length of one check."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.parts.service import service
from tests.parts.small_engine import SmallEngine


@pytest.fixture(autouse=True, scope="package")
def _frozen() -> Iterator[None]:
    """A service that ends would have the next one's start look again at all that the tests have imported: a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


@pytest.fixture
def run(tokenizer: Any) -> Any:
    """run(check, token_s): a service for the length of one check."""

    def go(check: Any, token_s: float = 0.0, **options: Any) -> None:
        async def main() -> None:
            async with service(SmallEngine(tokenizer, token_s=token_s), **options) as running:
                await check(running)

        asyncio.run(main())

    return go
