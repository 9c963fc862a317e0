"""Ending tasks, also those that miss a cancellation."""

import asyncio

from idiolect_server.ending import end


def test_tasks_that_miss_a_cancellation_end_all_the_same():
    missed = []

    async def misses(n: int) -> None:
        for _ in range(n):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed.append(n)
        await asyncio.sleep(60)

    async def main() -> None:
        tasks = [asyncio.create_task(misses(n)) for n in (0, 1, 3)]
        await asyncio.sleep(0)
        await asyncio.wait_for(end(tasks), 10)
        assert all(task.cancelled() for task in tasks)
        await end(tasks)
        await end([])

    asyncio.run(main())
    assert sorted(missed) == [1, 3, 3, 3]
