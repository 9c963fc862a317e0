"""Who has changed: what one server writes, every server hears of.

Whatever changes a user in Redis publishes the user's id in the same step. What a server has read of a user stays true
until it hears of the user, for as long as it hears at all: `epoch` numbers the times without a gap.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from idiolect_server.store.breaker import Breaker
from idiolect_server.store.connection import STORE_ERRORS, Connection, subscriber
from idiolect_server.store.keyspace import CHANNEL, USER_OF_KEY

log = logging.getLogger(__name__)

SILENCE_S = 2.0
"""Without a message for so long, Redis is asked whether it is there."""
RETRY_S = 0.5

PUBLISH_CHANGE = f"""
local function publish_change(key, how)
  redis.call('PUBLISH', '{CHANNEL}', how .. ' ' .. string.match(key, '{USER_OF_KEY}'))
end
"""
"""For scripts: `key` is any key of the user's that ends in the id, `how` is 'changed' or 'erased'."""


class Changes:
    """Call `heard` for what this server has written itself: its own message may be on its way when it answers."""

    def __init__(self, connection: Connection, breaker: Breaker) -> None:
        self._redis, self._breaker = connection, breaker
        self._listeners: list[Callable[[str, bool], None]] = []
        self._epoch = 0
        self._live = False

    @property
    def epoch(self) -> int | None:
        """What was read in an epoch holds while it lasts; None when changes may be missed."""
        return self._epoch if self._live else None

    def listen(self, listener: Callable[[str, bool], None]) -> Callable[[], None]:
        """Have `listener` called with every user who changed, and whether the user was erased.

        What is returned ends that.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def n_listeners(self) -> int:
        return len(self._listeners)

    def heard(self, user_id: str, erased: bool = False) -> None:
        for listener in self._listeners:
            listener(user_id, erased)

    def heard_of_all(self) -> None:
        self._epoch += 1

    async def watch(self) -> None:
        """Listen until cancelled, over all outages."""
        while True:
            try:
                async with await subscriber(self._redis) as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    await self._hear(pubsub)
            except STORE_ERRORS as error:
                log.debug("changes are not heard: %s", type(error).__name__)
            finally:
                self._live = False
            await asyncio.sleep(RETRY_S)

    async def _hear(self, pubsub: Any) -> None:
        """Messages until the connection fails; a silent one is asked for a sign of life."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if asked:
                    raise TimeoutError
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self._epoch += 1
                self._live = True
                self._breaker.reset()
            elif message["type"] == "message":
                how, _, user_id = message["data"].decode("utf-8", "replace").partition(" ")
                if how == "all":
                    self.heard_of_all()
                else:
                    self.heard(user_id, erased=how == "erased")
