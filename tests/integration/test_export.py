"""Votes out of a real Redis and into training: those that count, once each, whatever happened before and meanwhile."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from idiolect.learning import DAY_MS, MAX_DAILY_VOTES
from idiolect_server.store import keyspace
from idiolect_server.store.store import Store
from idiolect_training.data.formats import read_format
from tests.parts.embedded import embedded_store
from tests.parts.histories.tally import Found
from tests.parts.histories.world import World
from tests.parts.tiny import tiny_model

TEA = {"messages": [{"role": "user", "content": "What now?"}], "chosen": "tea", "rejected": "coffee", "consent": True}
COFFEE = TEA | {"chosen": "coffee", "rejected": "tea"}


def scenario(folder: Path, check: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        async with embedded_store(folder) as store:
            await check(store)

    asyncio.run(main())


async def give(store: Store, user_id: str, *votes: dict[str, Any]) -> list[str]:
    """Names of the votes, each given with a key of its own."""
    receipts = [await store.votes.add(user_id, f"{number} {vote}", vote) for number, vote in enumerate(votes)]
    return [receipt.vote_id for receipt in receipts]


async def exported(store: Store, n_entries: int = 1000) -> list[dict[str, Any]]:
    votes: list[dict[str, Any]] = []
    cursor = None
    while True:
        page, after = await store.export.page(cursor, n_entries)
        if after == cursor:
            return votes
        votes, cursor = votes + page, after


def test_only_the_last_answer_is_exported(tmp_path: Path):
    async def check(store: Store) -> None:
        *_, last = await give(store, "ada", TEA, TEA, COFFEE)
        for n_entries in (1, 2, 1000):
            (vote,) = await exported(store, n_entries)
            assert (vote["vote_id"], vote["chosen"]) == (last, "coffee")
        await store.votes.take_back("ada", last)
        assert [vote["chosen"] for vote in await exported(store)] == ["tea"]
        await store.erase("ada")
        assert await exported(store) == []

    scenario(tmp_path, check)


def test_an_answer_replaced_without_consent_is_not_exported(tmp_path: Path):
    async def check(store: Store) -> None:
        await give(store, "ada", TEA, COFFEE | {"consent": False})
        assert await exported(store) == []

    scenario(tmp_path, check)


def test_votes_over_the_daily_limit_are_not_exported_those_without_consent_count_towards_it(tmp_path: Path):
    async def check(store: Store) -> None:
        flood = [TEA | {"rejected": f"{n}", "consent": n % 2 == 0} for n in range(MAX_DAILY_VOTES + 10)]
        given = await give(store, "bot", *flood)
        if len({int(name.split("-")[1]) // DAY_MS for name in given}) > 1:
            pytest.skip("midnight fell into the test")
        assert [vote["vote_id"] for vote in await exported(store, 7)] == given[:MAX_DAILY_VOTES:2]

    scenario(tmp_path, check)


def test_pages_put_together_are_read_as_the_last_answers(tmp_path: Path):
    async def check(store: Store) -> None:
        await give(store, "ada", TEA)
        first, cursor = await store.export.page(None, 1000)
        await store.votes.add("ada", "again", COFFEE)
        second, _ = await store.export.page(cursor, 1000)
        file = tmp_path / "votes.ndjson"
        lines = [json.dumps(vote) + "\n" for vote in [*first, *second, *await exported(store)]]
        file.write_text("".join(lines))
        assert len(lines) == 3
        (preference,) = read_format("feedback", file)
        assert preference.chosen == "coffee"

    scenario(tmp_path, check)


def test_what_others_wrote_holds_up_nobody(tmp_path: Path):
    async def check(store: Store) -> None:
        (mine,) = await give(store, "ada", TEA)
        await give(store, "bob", TEA)
        await store._redis.set(keyspace.of_user("given", "bob"), "something else")
        stream = keyspace.of_shard("votes", keyspace.shard("ada"))
        for odd in ({**TEA, "user_id": ["ada"]}, {**TEA, "user_id": "ada"}, "text", {}):
            await store._redis.xadd(stream, {"vote": json.dumps(odd)})
        await store._redis.xadd(stream, {"another": "field"})
        assert [vote["vote_id"] for vote in await exported(store)] == [mine]

    scenario(tmp_path, check)


@pytest.mark.slow
def test_server_export_reader_and_fit_count_alike(tmp_path: Path, model_path: Path, caplog: pytest.LogCaptureFixture):
    """A few of the 500 histories of `make vote-histories` (M5)."""
    caplog.set_level(logging.ERROR)
    found, model = Found(), tiny_model(tmp_path / "model", model_path)

    async def check(store: Store) -> None:
        await World(tmp_path / "world", model, store, seed=1, n_users=10, found=found).live(n_rounds=2)

    scenario(tmp_path, check)
    assert (found.histories, found.retrainings) == (10, 2)
    assert found.trained > 0
    assert set(found.disagreements.values()) == {0}
    assert found.counted_twice == 0
