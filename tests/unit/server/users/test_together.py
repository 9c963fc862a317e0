"""Work that many ask for at once is done once, and never without what the last of them knew."""

import asyncio

import pytest

from idiolect_server.users.together import Together


class Counter:
    """Work that sees how many votes there were when it began."""

    def __init__(self) -> None:
        self.votes, self.n_runs = 0, 0

    async def look(self) -> int:
        self.n_runs += 1
        seen = self.votes
        await asyncio.sleep(0.01)
        return seen

    async def vote(self, together: Together[int], key: str = "ann") -> tuple[int, int]:
        self.votes += 1
        mine = self.votes
        return mine, await together.do(key, self.look)


def test_many_at_once_share_and_each_sees_its_own():
    async def main() -> None:
        counter, together = Counter(), Together[int]()
        votes = []
        for _ in range(50):
            votes.append(asyncio.create_task(counter.vote(together)))
            await asyncio.sleep(0.001)
        for mine, seen in await asyncio.gather(*votes):
            assert seen >= mine
        assert counter.n_runs < 20
        assert together._running == together._next == {}

    asyncio.run(main())


def test_users_do_not_wait_for_each_other():
    async def main() -> None:
        counter, together = Counter(), Together[int]()
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(counter.vote(together, f"user-{number}") for number in range(40)))
        assert counter.n_runs == 40
        assert asyncio.get_running_loop().time() - began < 0.3

    asyncio.run(main())


def test_one_who_leaves_takes_nothing_from_the_others():
    async def main() -> None:
        counter, together = Counter(), Together[int]()
        leaves, stays = (asyncio.create_task(counter.vote(together)) for _ in range(2))
        await asyncio.sleep(0.001)
        leaves.cancel()
        assert await stays == (2, 2)

    asyncio.run(main())


def test_an_error_is_for_all_who_asked_and_not_for_the_next(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        together = Together[int]()

        async def fail() -> int:
            raise ValueError("no")

        answers = await asyncio.gather(*(together.do("ann", fail) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ValueError] * 3
        assert await Counter().vote(together) == (1, 1)
        alone = asyncio.create_task(together.do("ann", fail))
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert "never retrieved" not in caplog.text
