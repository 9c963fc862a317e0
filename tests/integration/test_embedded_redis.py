"""The embedded Redis: a real one, which comes back when killed with all that it had acknowledged."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from server.errors import SettingsError, StoreUnavailable
from server.store.embedded import EmbeddedRedis
from server.store.store import Store

VOTE = {"messages": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"}


async def answering(store: Store) -> None:
    for _ in range(100):
        try:
            return await store.ping()
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("redis does not answer")


def test_killed_it_comes_back_with_every_vote(tmp_path: Path):
    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path / "data")
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        first = await store.votes.add("ada", "k1", VOTE)
        assert first.votes == 1
        killed = embedded.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await asyncio.sleep(0.5)
        await answering(store)
        assert embedded.pid != killed
        again = await store.votes.add("ada", "k1", VOTE)
        assert (again.duplicate, again.vote_id, again.votes) == (True, first.vote_id, 1)
        await store.close()
        await embedded.stop()

    asyncio.run(scenario())


def test_a_second_server_cannot_use_the_same_folder(tmp_path: Path):
    async def scenario() -> None:
        first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
        await first.start()
        with pytest.raises(SettingsError, match="in use"):
            await second.start()
        await first.stop()
        await second.start()
        await second.stop()

    asyncio.run(scenario())


def test_codes_are_loaded_once_and_read_back(tmp_path: Path):
    import numpy as np

    from server.store.record import decode_code

    async def scenario() -> None:
        embedded = EmbeddedRedis(tmp_path)
        await embedded.start()
        store = Store(embedded.url)
        await answering(store)
        users = [(f"user {n}", np.array([n, -n], np.float32)) for n in range(2500)]
        await store.load_codes("b1", users)
        found = await store.user("b1", "user 2499")
        assert found.record is not None
        assert decode_code(found.record)[0].tolist() == [2499, -2499]
        assert (await store.user("b2", "user 7")).record is None

        def must_not_be_read():
            raise AssertionError("loaded twice")
            yield

        await store.load_codes("b1", must_not_be_read())
        await store.close()
        await embedded.stop()

    asyncio.run(scenario())
