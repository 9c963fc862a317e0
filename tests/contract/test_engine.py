"""What the service asks of an engine, and two releases on one: the same tests on vLLM and on the small engine."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idiolect.user_model import Array, UserModel
from idiolect_server.admission import Admission
from idiolect_server.engine.base import Engine, Sampling
from idiolect_server.errors import BundleServed, BundleUnservable, PromptTooLong
from idiolect_server.prompt import Placed
from idiolect_server.releases.probe import probe
from idiolect_server.releases.registry import Releases
from idiolect_server.releases.release import Release
from idiolect_server.store.store import Store
from tests.contract.conftest import MAX_MODEL_LEN, N_INTERLEAVED, Running, adapter_of
from tests.live import Redis

PROMPTS = ("What is a tide pool?", "Why do bees hum?", "How do I cook rice?", "Tell me about glass.", "What is jazz?")


def test_a_streamed_reply_is_the_whole_one(running: Running):
    placed, sampling = running.placed(PROMPTS[0]), Sampling(max_tokens=12)
    whole = running.run(running.pieces(placed, sampling, running.adapters[0]))
    stream = running.run(running.pieces(placed, sampling, running.adapters[0], stream=True))
    assert len(whole) == 1
    assert len(stream) > 1
    assert "".join(text for text, _, _ in stream) == whole[0][0]
    assert [token for _, ids, _ in stream for token in ids] == list(whole[0][1])
    assert [reason for _, _, reason in stream] == [None] * (len(stream) - 1) + [whole[0][2]]


def test_a_reply_depends_on_user_adapter_and_prompt_and_on_nothing_else(running: Running):
    first, second = running.adapters
    seen = [
        running.text(running.placed(PROMPTS[0], user), adapter)
        for user, adapter in ((0, first), (4, first), (0, second), (None, first), (0, None))
    ]
    assert len(set(seen)) == len(seen)
    assert running.text(running.placed(PROMPTS[0]), first) == seen[0]


def test_the_model_as_it_is_replies_beside_adapters_as_alone(running: Running):
    """In one batch: whoever asks for the base model gets nothing of an adapter."""
    asked = [(prompt, adapter) for prompt in PROMPTS for adapter in (None, *running.adapters)]
    placed = {prompt: running.placed(prompt, None) for prompt in PROMPTS}
    alone = [running.text(placed[prompt], adapter) for prompt, adapter in asked]

    async def together() -> list[str]:
        batch = [running.pieces(placed[prompt], Sampling(max_tokens=12), adapter) for prompt, adapter in asked]
        return ["".join(text for text, _, _ in pieces) for pieces in await asyncio.gather(*batch)]

    assert running.run(together()) == alone


def test_a_reply_ends_at_max_tokens_and_at_a_stop_text(running: Running):
    placed, adapter = running.placed(PROMPTS[1]), running.adapters[0]
    (piece,) = running.run(running.pieces(placed, Sampling(max_tokens=3), adapter))
    assert (len(piece[1]), piece[2]) == (3, "length")
    whole = running.text(placed, adapter)
    stop = whole[4:7]
    assert running.text(placed, adapter, stop=(stop,)) == whole[: whole.index(stop)]


def test_a_seed_decides_what_is_drawn(running: Running):
    placed, adapter = running.placed(PROMPTS[2]), running.adapters[0]
    drawn = [running.text(placed, adapter, temperature=1.5, seed=seed) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_what_does_not_fit_is_refused(running: Running):
    long = Placed([1] * (MAX_MODEL_LEN + 1))
    with pytest.raises(PromptTooLong):
        running.text(long, running.adapters[0])
    with pytest.raises(PromptTooLong):
        running.run(running.engine.score_reply(Placed([1] * (MAX_MODEL_LEN - 3)), "a long reply to it", running.layout))


def test_scores_are_of_each_token_and_of_the_end(running: Running):
    reply, adapter = "Bees hum since their wings beat fast.", running.adapters[0]
    scores = [
        running.run(running.engine.score_reply(running.placed(PROMPTS[1], user), reply, running.layout, adapter))
        for user in (0, 4, 0)
    ]
    assert scores[0] == scores[2] != scores[1]
    assert all(logp < 0 for logp in scores[0])
    half = running.run(running.engine.score_reply(running.placed(PROMPTS[1], 0), "Bees hum", running.layout, adapter))
    assert half[:-1] == pytest.approx(scores[0][: len(half) - 1], abs=1e-3)


def test_user_tokens_that_are_no_numbers_are_noticed_and_harm_nobody_else(running: Running):
    """Such as a bundle would bring that passes every check: what the engine makes of it is seen before ready."""
    bundle, adapter = running.bundles[0], running.adapters[0]
    before = [running.text(running.placed(prompt), adapter) for prompt in PROMPTS]
    running.run(probe(running.engine, bundle, adapter))
    unsound = replace(bundle, user_model=Unsound(bundle.user_model.kind, bundle.user_model.basis, bundle.codes[0]))
    with pytest.raises(BundleUnservable, match=r"with the generic user, log-probabilities of a reply are \[nan, nan"):
        running.run(probe(running.engine, unsound, adapter))
    assert running.engine.alive
    assert [running.text(running.placed(prompt), adapter) for prompt in PROMPTS] == before


class Unsound(UserModel):
    """Whose user tokens are no numbers."""

    def user_tokens(self, code: Array) -> Array:
        return super().user_tokens(code) * np.float32(np.nan)


def test_leaving_a_reply_leaves_the_engine_free(running: Running):
    placed, adapter = running.placed(PROMPTS[3]), running.adapters[0]
    before = running.text(placed, adapter)

    async def leave() -> None:
        chunks = running.engine.generate(placed, Sampling(max_tokens=400), "leaver", adapter=adapter, stream=True)
        async for _ in chunks:
            break
        await chunks.aclose()

    running.run(leave())
    assert running.text(placed, adapter) == before
    assert running.engine.alive


def test_two_releases_on_one_engine_never_mix(running: Running, in_memory: Path, evidence):
    """R3: interleaved requests each get their bundle's solo reply; of a retired bundle nothing is left."""
    redis = Redis(in_memory)
    redis.start()
    try:
        value = running.run(serve_two(running, redis.url))
    finally:
        redis.stop()
    if running.n_interleaved == N_INTERLEAVED:
        evidence("R3", value)


async def serve_two(running: Running, url: str) -> dict[str, int]:
    store, engine = Store(url), running.engine
    watching = asyncio.create_task(store.changes.watch())
    before = store.changes.n_listeners
    releases = Releases(store, engine, Admission(engine.capacity, deadline_s=600))
    for bundle in running.bundles:
        await releases.add(bundle, adapter_of(bundle))
        with pytest.raises(BundleServed):
            await releases.add(bundle, adapter_of(bundle))
    first, second = (bundle.bundle_id for bundle in running.bundles)
    assert any(first in task.get_name() for task in asyncio.all_tasks())
    users = running.bundles[0].user_ids[::3]
    asked = [
        (bundle_id, user, prompt) for bundle_id in (first, second) for user in users[:4] for prompt in PROMPTS
    ]  # 40, each several times

    async def reply(bundle_id: str, user_id: str, prompt: str) -> str:
        with releases.lease(bundle_id) as release:
            return await _reply(engine, release, user_id, prompt)

    solo = {one: await reply(*one) for one in asked}
    order = [asked[number % len(asked)] for number in range(running.n_interleaved)]
    random.Random(0).shuffle(order)
    together = await asyncio.gather(*(reply(*one) for one in order))
    wrong = sum(text != solo[one] for one, text in zip(order, together, strict=True))
    assert wrong == 0
    differ = sum(solo[first, user, prompt] != solo[second, user, prompt] for _, user, prompt in asked)
    assert differ > len(asked) / 2

    with pytest.raises(ValueError, match="active"):
        await releases.retire(first)
    releases.activate(second)
    with releases.lease(first) as held:
        retiring = asyncio.create_task(releases.retire(first))
        await asyncio.sleep(0.05)
        assert not retiring.done()  # it waits for this request, which is served to its end
        assert await _reply(engine, held, users[0], PROMPTS[0]) == solo[first, users[0], PROMPTS[0]]
    await retiring
    with pytest.raises(KeyError), releases.lease(first):
        pass
    left = {
        "cache_entries": releases.cache.count(first),
        "tasks": sum(first in task.get_name() for task in asyncio.all_tasks()),
        "listeners": store.changes.n_listeners - before - 2,  # the cache's and the other scorer's
    }
    assert not any(left.values()), left
    assert await reply(second, users[0], PROMPTS[0]) == solo[second, users[0], PROMPTS[0]]
    await engine.load_adapter(adapter_of(running.bundles[0]))  # as the fixture left it
    await releases.close()
    watching.cancel()
    await asyncio.wait([watching])
    await store.close()
    return {"interleaved": len(order), "wrong": wrong, "differ": differ, **left}


async def _reply(engine: Engine, release: Release, user_id: str, prompt: str) -> str:
    who = await release.personalizer.find(user_id)
    assert who.bundle_id == release.bundle_id
    assert who.state == "stored"
    said = [{"role": "user", "content": prompt}]
    placed = await engine.conversations.place(said, release.layout, who.user_tokens)
    name = f"two-{random.randbytes(8).hex()}"
    chunks = engine.generate(placed, Sampling(max_tokens=12), name, adapter=release.adapter)
    return "".join([chunk.text async for chunk in chunks])
