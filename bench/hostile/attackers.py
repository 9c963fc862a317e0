"""Twenty callers of ten kinds who mean harm, half of them with a key: a process of its own, until it is told to stop.

`python -m bench.hostile.attackers URL KEY` prints how often each kind got which answer (`KIND | key BOOL | ANSWER`) as
JSON when its input ends. Every one sends its next request when the last one was answered, at most RATE_PER_S. None of
what they send is work that a server owes anybody: it is refused, or left unfinished by them.
"""

import asyncio
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from tests.parts.hostile_requests import CASES, body

RATE_PER_S = 5.0
N_HALVES = 100
"""Connections that each of two callers holds with a request half sent."""
ADDRESS = "127.0.0.2"
"""Another one than the polite callers have."""
JSON = {"content-type": "application/json"}
CHAT, GENERATE, FEEDBACK = "/v1/chat/completions", "/generate", "/feedback"
LONG = 900_000

Request = tuple[str, str, bytes]
"""Method, path, body."""


def _refused(wanted: Callable[[str], bool]) -> Iterator[Request]:
    names = sorted(name for name, (_, statuses) in CASES.items() if wanted(name) and 200 not in statuses)
    return (("POST", CHAT, body(name, max_tokens=50)) for name in itertools.cycle(names))


def _is_form(name: str) -> bool:
    return any(part in name for part in ("regex", "grammar", "schema", "choice", "pattern"))


def long_texts() -> Iterator[Request]:
    """Bodies just below the limit, of texts that take long to split into tokens."""
    for number in itertools.count():
        text = ("word " * (LONG // 5), "a" * LONG, " " * LONG, "🙂" * (LONG // 12))[number % 4]
        said = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        yield "POST", (CHAT, GENERATE)[number % 2], json.dumps(said).encode()


def broken_json() -> Iterator[Request]:
    for number in itertools.count():
        yield (
            "POST",
            (CHAT, GENERATE, FEEDBACK)[number % 3],
            (b"[" * 500_000, b'{"a":' * 100_000, b"\xff" * 9)[number % 3],
        )


def odd_paths() -> Iterator[Request]:
    ids = ["..", ".", "a/../b", "\n", "\udc80", "x" * 300, "a/question", "%", ""]
    for number in itertools.count():
        user = quote(ids[number % len(ids)], safe="", errors="surrogateescape")
        yield ("GET", "PUT", "DELETE")[number % 3], f"/users/{user}/profile", b'{"profile": 5}'


def bad_votes() -> Iterator[Request]:
    for number in itertools.count():
        vote = {"user_id": f"nobody-{number}", "prompt": "p", "chosen": "a" * 40_000, "rejected": "b"}
        yield "POST", FEEDBACK, json.dumps(vote).encode()


def erasures() -> Iterator[Request]:
    """Of users who were never here."""
    return (("DELETE", f"/users/nobody-{number}", b"") for number in itertools.count())


def unknown_routes() -> Iterator[Request]:
    rng = random.Random(0)
    while True:
        yield "POST", "/" + "".join(rng.choices("abc/", k=50)), b"{}"


class Attackers:
    def __init__(self, url: str, key: str) -> None:
        self._url, self._key, self.answers = url, key, Counter[str]()

    def _count(self, name: str, answer: object) -> None:
        self.answers[f"{name} | {answer}"] += 1

    async def asks(self, name: str, requests: Iterator[Request], key: bool) -> None:
        """One request after the other, over connections of its own."""
        headers = JSON | ({"authorization": f"Bearer {self._key}"} if key else {})
        connector = aiohttp.TCPConnector(local_addr=(ADDRESS, 0))
        async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
            for method, path, content in requests:
                try:
                    async with http.request(method, URL(self._url + path, encoded=True), data=content) as response:
                        await response.read()
                        self._count(name, response.status)
                except aiohttp.ClientError as error:
                    self._count(name, type(error).__name__)
                await asyncio.sleep(1 / RATE_PER_S)

    async def leaves(self, name: str, key: bool) -> None:
        """Asks for a long reply, and is gone before its first word."""
        said = {"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 2000, "stream": True}
        content = json.dumps(said).encode()
        authorization = f"authorization: Bearer {self._key}\r\n" if key else ""
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{authorization}content-length: {len(content)}\r\n"
        while True:
            writer = await self._open()
            writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + content)
            await writer.drain()
            writer.close()
            self._count(name, "left")
            await asyncio.sleep(1 / RATE_PER_S)

    async def half_sends(self, name: str, start: bytes) -> None:
        """Holds N_HALVES connections that go on by a byte now and then, and opens others for those that are closed."""
        held: list[asyncio.StreamWriter] = []
        while True:
            held = [writer for writer in held if not writer.is_closing()]
            while len(held) < N_HALVES:
                with suppress(OSError):
                    held.append(await self._open())
                    held[-1].write(start)
                    self._count(name, "begun")
            for writer in held:
                with suppress(OSError):
                    writer.write(b"x")
                    await writer.drain()
            await asyncio.sleep(1.0)

    async def endless_head(self, name: str) -> None:
        while True:
            writer = await self._open()
            with suppress(OSError):
                writer.write(b"GET /health/live HTTP/1.1\r\n")
                for number in range(2000):
                    writer.write(f"x-{number}: {'y' * 1000}\r\n".encode())
                    await writer.drain()
            writer.close()
            self._count(name, "cut off")
            await asyncio.sleep(1 / RATE_PER_S)

    async def _open(self) -> asyncio.StreamWriter:
        parts = urlsplit(self._url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(ADDRESS, 0))
        return writer

    def all(self) -> list[Any]:
        kinds: dict[str, Callable[[], Iterator[Request]]] = {
            "long texts": long_texts,
            "broken JSON": broken_json,
            "odd fields": lambda: _refused(lambda name: not _is_form(name)),
            "odd forms": lambda: _refused(_is_form),
            "odd paths": odd_paths,
            "bad votes": bad_votes,
            "erasures": erasures,
        }
        asked = [self.asks(f"{name} | key {key}", kinds[name](), key) for name in kinds for key in (False, True)]
        halves = [
            self.half_sends("half a head | key False", b"GET / HTTP/1.1\r\nx: "),
            self.half_sends("nothing | key False", b""),
        ]
        gone = [self.leaves(f"gone | key {key}", key) for key in (False, True)]
        return [
            *asked,
            *halves,
            *gone,
            self.endless_head("endless head"),
            self.asks("no route", unknown_routes(), True),
        ]


async def attack(url: str, key: str) -> Counter[str]:
    attackers = Attackers(url, key)
    tasks = [asyncio.create_task(one) for one in attackers.all()]
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    ended, _ = await asyncio.wait([reading, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in ended - {reading}:
        task.result()  # one that gave up would leave a calmer storm
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return attackers.answers


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(attack(sys.argv[1], sys.argv[2]))) + "\n")
