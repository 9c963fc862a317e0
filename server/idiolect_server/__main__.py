"""python -m idiolect_server: read the settings, serve until stopped."""

import logging
import sys

import uvicorn

from idiolect.errors import IdiolectError
from idiolect_server.app import create_app
from idiolect_server.settings import Settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.read()
    except IdiolectError as error:
        sys.exit(f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    app = create_app(settings)
    # No access log: paths hold user ids, and an erased user must not be found in a log.
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    # Asked to stop, not signalled: uvicorn would pass a signal on, and the exit status would not say that we failed.
    app.state.give_up = lambda: setattr(server, "should_exit", True)
    server.run()
    if app.state.failed:
        sys.exit(1)


if __name__ == "__main__":  # vLLM's processes import this module again
    main()
