"""Read the settings, serve until stopped, and tell the supervisor by the exit status how it ended."""

import logging
import sys

import uvicorn

from idiolect_server.app import create_app
from idiolect_server.scratch import scratch
from idiolect_server.settings import Settings


def serve() -> None:
    """Raises SettingsError. Exits with 1 when the engine could not start or has died."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.read()
    app = create_app(settings)
    # No access log: paths hold user ids, and an erased user must not be found in a log.
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    # Asked to stop, not signalled: uvicorn would pass a signal on, and the exit status would not say that we failed.
    app.state.give_up = lambda: setattr(server, "should_exit", True)
    with scratch():
        server.run()
    if app.state.failed:
        sys.exit(1)
