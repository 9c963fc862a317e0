"""Requests beside one another: what they share, and what they do not."""

import asyncio

import pytest

from idiolect.bundle import Bundle
from idiolect.prompt.layout import Layout
from idiolect_server.engine.base import Sampling
from idiolect_server.prompt import Placed, UserTokens
from tests.integration.engine.conftest import Running


def test_plain_and_personalized_requests_share_a_batch(running: Running, demo_bundle: Bundle):
    """A plain prompt between personalized ones gets its solo reply, and the engine survives (vLLM issue 51121)."""
    layout = demo_bundle.manifest.layout
    prompt = running.encode([{"role": "user", "content": "What is a tide pool?"}])
    codes = demo_bundle.codes[:3]
    users = [UserTokens(demo_bundle.user_model.user_tokens(code), demo_bundle.bundle_id) for code in codes]
    requests = [Placed(prompt), *(Placed(prompt, layout.offset(prompt), user) for user in users)]

    async def reply(placed: Placed, name: str) -> list[int]:
        sampling = Sampling(max_tokens=8)
        return [t async for chunk in running.generate(placed, sampling, name) for t in chunk.token_ids]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(reply(placed, f"both-{i}") for i, placed in enumerate(requests))))

    solo = [running.run(reply(placed, f"solo-{i}")) for i, placed in enumerate(requests)]
    assert running.run(together()) == solo


@pytest.mark.any_way  # nobody has user tokens in it
def test_seeded_replies_do_not_depend_on_how_their_prompts_are_cut(running: Running):
    """vLLM draws after each part of a prompt and takes it back; on a CPU that ended the engine for everybody."""
    long = running.encode([{"role": "user", "content": "Count the boats, please. " * 180}])
    assert len(long) > 2 * 512  # three parts at least
    prompts = [long, running.encode([{"role": "user", "content": "Why?"}]), [*long[:-1], *long[-9:]]]

    async def reply(number: int, name: str) -> list[int]:
        sampling = Sampling(max_tokens=6, temperature=1.0, seed=number)
        chunks = running.generate(Placed(prompts[number]), sampling, f"{name}-{number}")
        return [token async for chunk in chunks for token in chunk.token_ids]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(reply(number, "seeded-both") for number in range(3))))

    solo = [running.run(reply(number, "seeded")) for number in range(3)]
    assert running.run(together()) == solo
    assert running.engine.alive


def test_a_shared_system_prompt_is_computed_once(running: Running, demo_bundle: Bundle, evidence):
    """A5: after_system lets a second user reuse the system part; the paper's placement cannot."""
    trained = demo_bundle.manifest.layout
    layouts = {
        name: Layout(placement=name, anchor=trained.anchor, bos_id=trained.bos_id)
        for name in ("after_system", "after_bos")
    }
    users = [
        UserTokens(demo_bundle.user_model.user_tokens(code), demo_bundle.bundle_id) for code in demo_bundle.codes[:2]
    ]

    async def cached(placed: Placed, name: str) -> int:
        n = 0
        async for chunk in running.generate(placed, Sampling(max_tokens=1), name):
            n = chunk.n_cached_tokens
        return n

    found = {}
    for name, layout in layouts.items():
        # Another system prompt for each layout, so that neither profits from what the other has computed.
        system = f"You follow the {name} house rules. " + "Be exact, be polite, and cite what you rely on. " * 25
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "What is a glacier?"}]
        prompt = running.encode(messages)
        n_system = layouts["after_system"].offset(prompt)
        assert n_system >= 200
        counts = [
            running.run(cached(Placed(prompt, layout.offset(prompt), user), f"{name}-{i}"))
            for i, user in enumerate(users)
        ]
        found[name] = {"system_tokens": n_system, "cached_for_second_user": counts[1]}
    shared = found["after_system"]
    assert shared["cached_for_second_user"] >= shared["system_tokens"] - 32  # whole blocks of 32 only
    assert found["after_bos"]["cached_for_second_user"] == 0
    if running.label == "passthrough-merged":
        evidence("A5", found)
