"""uvicorn with our connections, and our way to close."""

import multiprocessing
import os
import resource
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI

from idiolect_server.door.closing import Closing
from idiolect_server.door.connection import Connection
from idiolect_server.errors import Stopping

MAX_CONNECTIONS = 4096
MAX_OPEN_FILES = 65_536
"""What is asked for at most: some systems allow a billion, and children that close them all one by one."""
OTHER_FILES = 256
"""Of libraries, Redis, the engine and its devices."""


class Server(uvicorn.Server):
    """Closes as `app.state.closing` says, whether by a signal or because the engine has failed.

    The first SIGTERM or SIGINT begins it, the second ends the process at once.
    """

    def __init__(self, app: FastAPI, host: str, port: int, n_connections: int = MAX_CONNECTIONS) -> None:
        # No access log: paths hold user ids, and an erased user must not be found in a log. What is served is told of a
        # caller by the key alone, so no header of a proxy is read.
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            limit_concurrency=n_connections,
            timeout_graceful_shutdown=1,  # for those who do not read what they were sent
        )
        super().__init__(config)
        self._closing: Closing = app.state.closing
        self._signal: int | None = None
        self._turned_away = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            kill_engine()
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self._signal = sig
        self._closing.begin(Stopping("the server is being stopped", hint="send the request again, to the next one"))

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to leave the loop."""
        if await super().on_tick(counter):
            return True
        closing = self._closing
        if closing.reason is None:
            return False
        if not self._turned_away:
            self._turned_away = True
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.turn_away(closing.reason)
        if closing.go_on():
            return False
        if self._signal is not None:
            super().handle_exit(self._signal, None)  # so that the process ends by it, as its sender expects
        self.should_exit = True
        return True


def kill_engine() -> None:
    """It ends with its server, but not while it hangs, and would keep its memory from the next one."""
    for child in multiprocessing.active_children():
        child.kill()


def n_connections() -> int:
    """How many callers there are places for, having raised the limit of open files as far as is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_files = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, hard))
    return max(16, min(MAX_CONNECTIONS, n_files - OTHER_FILES))
