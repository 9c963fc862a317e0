"""Callers of both APIs whose streams are open, and callers who send half a request, on one server."""

import json
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import httpx

LONGEST = 1900
"""Tokens: of the tiny model this takes seconds."""
PATHS = ("/generate", "/v1/chat/completions")
HALVES = (
    b"",
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nX: ",
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
)


class Stream(threading.Thread):
    """One caller. `end` is `whole`, `told` (an error that says retry), or what else happened."""

    def __init__(self, url: str, path: str) -> None:
        super().__init__(daemon=True)
        self._url, self._path = url, path
        self.n_events = 0
        self.end = "open"

    def run(self) -> None:
        asked: dict[str, Any] = {
            "messages": [{"role": "user", "content": "Count."}],
            "max_tokens": LONGEST,
            "stream": True,
        }
        last = ""
        try:
            with httpx.stream("POST", self._url + self._path, json=asked, timeout=120) as response:
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        last = line.removeprefix("data: ")
                        self.n_events += 1
        except httpx.TransportError as error:
            self.end = type(error).__name__
            return
        self.end = _end(last)


def _end(last: str) -> str:
    if last == "[DONE]":
        return "whole"
    try:
        event = json.loads(last)
    except ValueError:
        return "nothing"
    if "finish_reason" in event:
        return "whole"
    return "told" if event.get("error", {}).get("retryable") is True else "silent"


class Crowd:
    """`n` streams, half of each API, and three half-sent requests for each of them; all have begun when it is made."""

    def __init__(self, url: str, n: int) -> None:
        self.streams = [Stream(url, PATHS[number % 2]) for number in range(n)]
        address = url.removeprefix("http://").split(":")
        self._halves = []
        for number in range(3 * n):
            half = socket.create_connection((address[0], int(address[1])))
            half.sendall(HALVES[number % 3])
            self._halves.append(half)
        for stream in self.streams:
            stream.start()
        while not all(stream.n_events > 3 for stream in self.streams):
            time.sleep(0.02)

    def ends(self) -> list[str]:
        for stream in self.streams:
            stream.join()
        return [stream.end for stream in self.streams]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for half in self._halves:
            half.close()
