"""What the watchdog asks of an engine."""

import asyncio

from idiolect_server.engine.base import Sampling
from idiolect_server.prompt import Placed
from tests.contract.conftest import MAX_MODEL_LEN, Running


def test_the_heart_beats_beside_long_prompts_and_without_any(running: Running):
    """Between two steps the engine answers: long before the prompts, each of several steps, have their replies."""
    placed = [Placed([7 + number] * (MAX_MODEL_LEN - 4)) for number in range(6)]

    async def beats() -> int:
        writing = [asyncio.create_task(running.pieces(one, Sampling(max_tokens=4), None)) for one in placed]
        n_beats = 0
        while not all(one.done() for one in writing):
            await asyncio.wait_for(running.engine.beat(), 60)
            n_beats += 1
        await asyncio.gather(*writing)
        await asyncio.wait_for(running.engine.beat(), 60)
        return n_beats

    assert running.run(beats()) >= 2
