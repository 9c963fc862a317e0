"""Read the settings, serve until stopped, and tell the supervisor by the exit status how it ended."""

import logging
import os
import sys
import threading
import time

from idiolect_server.app import create_app
from idiolect_server.door.closing import Closing
from idiolect_server.door.request_id import InLogs
from idiolect_server.door.server import Server, kill_engine, n_connections
from idiolect_server.engine.time_slice import SHORTEST_NS, take_turns
from idiolect_server.scratch import scratch
from idiolect_server.settings import Settings

log = logging.getLogger(__name__)

LAST_RESORT_S = 8.0
"""After running requests have had their time: a thread that nothing can cancel must not hold the process."""


def serve() -> None:
    """Raises SettingsError. Exits with 1 when the engine could not start, has died or hangs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(InLogs())
    settings = Settings.read()
    app = create_app(settings)
    closing: Closing = app.state.closing
    take_turns(SHORTEST_NS)  # Redis, which this process may start, has them from it
    threading.Thread(target=_end_at_last, args=(closing,), name="last-resort", daemon=True).start()
    with scratch():
        Server(app, settings.host, settings.port, n_connections()).run()
    if closing.failed:
        sys.exit(1)


def _end_at_last(closing: Closing) -> None:
    """End the process when it does not end by itself: engine and Redis end with it, and no vote is lost by that."""
    closing.begun.wait()
    while time.monotonic() < closing.until_s + LAST_RESORT_S:
        time.sleep(0.2)
    log.error("the server did not close by itself")
    kill_engine()
    os._exit(1)
