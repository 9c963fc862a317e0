"""Before ready: a short reply and a score, so that what cannot serve says so and never meets a request."""

import asyncio
import logging
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from idiolect.bundle import Bundle
from idiolect.errors import BaseModelMismatch
from idiolect_server.admission import Admission
from idiolect_server.engine.base import Adapter
from idiolect_server.errors import BundleServed, BundleUnservable, EngineDead, GenerationFailed
from idiolect_server.releases import probe
from idiolect_server.releases.registry import Releases
from idiolect_server.store.store import Store
from tests.parts.service import service
from tests.parts.small_engine import SmallEngine


class Scores(SmallEngine):
    """Gives these scores."""

    def __init__(self, tokenizer: Any, *scores: float) -> None:
        super().__init__(tokenizer)
        self.scores = list(scores)

    async def score_reply(self, *args: Any) -> list[float]:
        return self.scores


class Dies(SmallEngine):
    """At its first prompt, as vLLM does of rows of another width, and of int8 weights in float32."""

    async def generate(self, *args: Any, **more: Any) -> Any:
        self.dead = True
        raise EngineDead("the engine has stopped")
        yield


class Refuses(SmallEngine):
    async def score_reply(self, *args: Any) -> list[float]:
        raise GenerationFailed("the engine refused or failed this request: no kernel for this")


class Silent(SmallEngine):
    """Never ends a reply."""

    async def generate(self, *args: Any, **more: Any) -> Any:
        await asyncio.sleep(60)
        yield


class EndsEmpty(SmallEngine):
    async def generate(self, *args: Any, **more: Any) -> Any:
        return
        yield


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


BROKEN = {
    "nan": (lambda tokenizer: Scores(tokenizer, -1.0, math.nan), r"log-probabilities of a reply are \[-1.0, nan\]"),
    "infinite": (lambda tokenizer: Scores(tokenizer, -math.inf), r"are \[-inf\]"),
    "more than certain": (lambda tokenizer: Scores(tokenizer, -1.0, 0.5), r"are \[-1.0, 0.5\]"),
    "none": (Scores, r"are \[\]"),
    "dies": (Dies, "the engine has stopped"),
    "refuses": (Refuses, "no kernel for this"),
    "silent": (Silent, "no reply of 2 tokens within 0.1 s"),
    "empty": (EndsEmpty, "a reply did not end"),
    "narrow": (lambda tokenizer: SmallEngine(tokenizer, hidden_size=64), "have 576 numbers, token embeddings .* 64"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_engine_that_gives_no_sound_reply_is_never_ready(
    tokenizer: Any, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """The start fails with one error in words, without a traceback, and no request is ever let in."""
    make, words = BROKEN[how]
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.1 if how == "silent" else 30.0)

    async def main() -> None:
        async with service(make(tokenizer)) as running:
            assert running.app.state.closing.failed
            assert running.app.state.serving is None

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    said = [record for record in caplog.records if "cannot start" in record.message]
    assert len(said) == 1
    assert not said[0].exc_info
    assert re.search(words, said[0].message), said[0].message


def test_users_who_are_tried_are_the_generic_one_and_the_largest_code(demo_bundle: Bundle):
    codes = demo_bundle.codes.copy()
    codes[5] *= 3
    tried = probe._users(replace(demo_bundle, codes=codes))
    assert list(tried) == ["the generic user", "a trained user"]
    assert (tried["a trained user"] == codes[5]).all()
    assert list(probe._users(replace(demo_bundle, codes=codes[:0]))) == ["the generic user"]


def test_a_release_that_cannot_serve_leaves_the_others_as_they_were(tokenizer: Any, demo_bundle: Bundle):
    """Neither a bundle that is served already, nor one of another width, nor one whose reply is unsound."""

    async def main() -> None:
        engine = SmallEngine(tokenizer)
        store = Store("redis://127.0.0.1:1/0")  # which does not answer
        releases = Releases(store, engine, Admission(engine.capacity, 60.0))
        assert demo_bundle.adapter_path is not None
        adapter = Adapter(demo_bundle.bundle_id, demo_bundle.adapter_path)
        loading = asyncio.create_task(asyncio.sleep(0))
        await releases.add(demo_bundle, adapter, loading)
        with pytest.raises(BundleServed, match="is being served already"):
            await releases.add(demo_bundle, adapter)
        engine.hidden_size = 64
        with pytest.raises(BaseModelMismatch):
            await releases.add(other(demo_bundle, "a"), Adapter("a" * 16, adapter.path))
        engine.hidden_size = 576
        engine.score_reply = Scores(tokenizer, math.nan).score_reply  # type: ignore[method-assign]
        with pytest.raises(BundleUnservable, match="with the generic user"):
            await releases.add(other(demo_bundle, "b"), Adapter("b" * 16, adapter.path))
        assert engine.adapters == {adapter}
        assert releases.active.bundle_id == demo_bundle.bundle_id
        await releases.close()
        await store.close()

    asyncio.run(main())


def other(bundle: Bundle, digit: str) -> Bundle:
    """The same under another id."""
    found = replace(bundle)
    found.__dict__["bundle_id"] = digit * 16
    return found
