"""The engine's heart: asked at all times whether it has come to the end of its step, so that one that hangs is noticed.

An engine can be stopped, or loop within one step, while its process and our health look well. What tells is that it
answers between two steps, which it does also while it computes the longest prompt, piece by piece.
"""

import asyncio

from idiolect_server.engine.base import Engine
from idiolect_server.errors import EngineDead

REST_S = 1.0
"""Between two beats."""
TICK_S = 0.5
READY_S = 7.0
"""Of silence, after which the server is not ready: with REST_S and TICK_S, within 10 s of the last sign of life."""


class Heart:
    """Beats while `watch` runs. `stall_s` is the silence after which the engine is given up."""

    def __init__(self, engine: Engine, stall_s: float) -> None:
        self._engine, self._stall_s = engine, stall_s
        self.silent_s = 0.0
        """Since the engine was asked, counted in ticks: a pause of this process is no silence of the engine."""

    @property
    def beats(self) -> bool:
        """Whether requests should be sent here."""
        return self._engine.alive and self.silent_s < READY_S

    async def watch(self) -> EngineDead:
        """What is wrong, as soon as the engine is dead or has been silent for too long."""
        while True:
            beat = asyncio.ensure_future(self._engine.beat())
            try:
                while not beat.done():
                    await asyncio.wait((beat,), timeout=TICK_S)
                    self.silent_s = 0.0 if beat.done() else self.silent_s + TICK_S
                    if not self._engine.alive:
                        return EngineDead("the engine has died")
                    if self.silent_s >= self._stall_s:
                        return EngineDead(f"the engine has not ended a step for {self.silent_s:g} s")
                beat.result()
            except EngineDead as error:
                return error
            except Exception as error:
                return EngineDead(f"the engine does not answer as it should: {error}")
            finally:
                beat.cancel()
            await asyncio.sleep(REST_S)
