"""The door: what callers send, or fail to send, before a request is whole. Real sockets, a route that only counts."""

import asyncio

import pytest

from idiolect_server.door import connection
from idiolect_server.errors import Stopping
from tests.parts.door import Door, answers, code, run

HALF_S = 0.4
"""What a request may take in these tests, instead of ten seconds."""
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CALL = HEAD + b"Content-Length: 2\r\n\r\nhi"


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", HALF_S)
    monkeypatch.setattr(connection, "LINGER_S", 0.2)


ENDLESS = {
    "a header's value": (HEAD + b"X: ", b"x" * 65_536, 20),
    "a header's name": (HEAD, b"x" * 65_536, 20),
    "headers": (HEAD, b"X: y\r\n" * 10_000, 20),
    "a path": (b"GET /", b"x" * 65_536, 20),
    "a query": (b"GET /health/live?", b"x" * 65_536, 20),
    "white space of a value": (HEAD + b"X:", b" " * 65_536, 20),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 10_000, 20),
    "a trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"x" * 65_536, 20),
    "what stands beside a chunk's length": (CHUNKED + b"1;", b"x" * 65_536, 20),
    "empty lines": (b"", b"\r\n" * 32_768, 20),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_refused_after_64_kb(name: str):
    begin, piece, n = ENDLESS[name]

    async def check(opened: Door) -> None:
        status, told = code(await opened.say(begin, *[piece] * n))
        assert (status, told) in {(431, "headers_too_large"), (400, "invalid_request")}
        await opened.polite()
        assert not [one for one in opened.server.server_state.connections if one._n_idle_bytes > 1 << 19]

    run(check)


@pytest.mark.parametrize("n_bytes", [70_000, 200_000])
def test_a_whole_head_that_is_too_long_is_refused_and_one_below_is_not(n_bytes: int):
    async def check(opened: Door) -> None:
        long, short = (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * n for n in (n_bytes, 60_000))
        assert code(await opened.say(long + b"\r\n\r\n")) == (431, "headers_too_large")
        said = await opened.say(short + b"\r\nConnection: close\r\n\r\n")
        assert answers(said) == [(200, {})]

    run(check)


HALF = {
    "nothing": (),
    "one byte": (b"P",),
    "half a head": (HEAD + b"X: ",),
    "a head, byte by byte": tuple(bytes([byte]) for byte in HEAD),
    "half a body": (HEAD + b"Content-Length: 1000\r\n\r\nx",),
    "no body": (HEAD + b"Content-Length: 1000\r\n\r\n",),
    "half a chunk": (CHUNKED + b"5\r\nx",),
    "chunks, one by one": (CHUNKED, *[b"1\r\nx\r\n"] * 40),
    "a body that is asked for": (HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",),
    "half of a second one": (CALL, HEAD),
    "half a body of a second one": (CALL, HEAD + b"Content-Length: 1000\r\n\r\nx"),
    "empty lines after one": (CALL, *[b"\r\n"] * 40),
    "half a body of a path that does not exist": (
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    ),
}


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", HALF)
def test_half_a_request_is_closed_in_time(name: str):
    async def check(opened: Door) -> None:
        began = asyncio.get_running_loop().time()
        pieces = HALF[name]
        saying = asyncio.create_task(opened.say(*pieces, pause_s=3 * HALF_S / max(len(pieces), 4)))
        await opened.polite()
        said = await saying
        assert asyncio.get_running_loop().time() - began < 10 * HALF_S
        told = answers(said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
        assert [status for status, _ in told] in ([], [408], [200], [200, 408], [404])
        assert not any(status == 408 and not content["error"]["retryable"] for status, content in told)
        while opened.server.server_state.connections or opened.closing.n_running:
            await asyncio.sleep(0.01)

    run(check)


@pytest.mark.usefixtures("_hasty")
def test_a_reply_may_take_longer_than_a_request():
    async def check(opened: Door) -> None:
        slow = CALL.replace(b"/generate", b"/generate?wait_s=0.6")
        last = CALL.replace(b"Host", b"Connection: close\r\nHost")
        assert answers(await opened.say(slow + last)) == [(200, {"n": 2})] * 2
        # The second waits in part while the first is answered: that is no fault of its caller.
        assert answers(await opened.say(slow + last[:-1], last[-1:], pause_s=0.7)) == [(200, {"n": 2})] * 2

    run(check)


@pytest.mark.parametrize("begin", [b"", HEAD + b"X: ", HEAD + b"Content-Length: 1000\r\n\r\nx"])
def test_half_sent_requests_shut_nobody_out(begin: bytes):
    async def check(opened: Door) -> None:
        patient = await opened.open("127.0.0.2")
        patient[1].write(HEAD)
        held = []
        for _ in range(8):
            for _ in range(40):
                held.append(await opened.open())
                held[-1][1].write(begin)
            await opened.polite()
        assert len(opened.server.server_state.connections) <= 65
        # Room was made among those of the address that took it.
        patient[1].write(b"Content-Length: 2\r\nConnection: close\r\n\r\nhi")
        assert answers(await patient[0].read()) == [(200, {"n": 2})]
        for _, writer in [*held, patient]:
            writer.close()

    run(check)


def test_running_replies_keep_their_places():
    async def check(opened: Door) -> None:
        slow = CALL.replace(b"/generate", b"/generate?wait_s=1").replace(b"Host", b"Connection: close\r\nHost")
        running = [asyncio.create_task(opened.say(slow)) for _ in range(8)]
        while opened.closing.n_running < 8:
            await asyncio.sleep(0.01)
        for _ in range(20):
            await opened.open()
        assert [answers(await one) for one in running] == [[(200, {"n": 2})]] * 8

    run(check, n_connections=8)


def test_who_never_reads_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "UNREAD_S", 0.3)

    async def check(opened: Door) -> None:
        _, writer = await opened.open()
        writer.transport.pause_reading()
        writer.write(CALL.replace(b"/generate", b"/flood"))
        while not opened.closing.n_running:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while opened.closing.n_running or opened.server.server_state.connections:
                await asyncio.sleep(0.01)
        writer.close()

    run(check)


ODD = {
    "no protocol": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no number": CHUNKED + b"zz\r\n",
    "NUL in a header": HEAD + b"X: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_http_is_told_so(name: str):
    async def check(opened: Door) -> None:
        assert code(await opened.say(ODD[name])) == (400, "invalid_request")
        await opened.polite()

    run(check)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_another_protocol_is_not_taken_up(protocol: bytes):
    async def check(opened: Door) -> None:
        upgrade = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: " + protocol
        upgrade += b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
        assert [status for status, _ in answers(await opened.say(upgrade))] == [404]
        await opened.polite()

    run(check)


def test_closing_turns_away_who_has_not_sent_a_whole_request():
    async def check(opened: Door) -> None:
        idle, half, waiting, running = [await opened.open() for _ in range(4)]
        idle[1].write(CALL)
        assert answers(await idle[0].readuntil(b"}"))
        half[1].write(HEAD)
        waiting[1].write(HEAD + b"Content-Length: 9\r\n\r\nx")
        running[1].write(CALL.replace(b"/generate", b"/generate?wait_s=1"))
        while opened.closing.n_running < 2:
            await asyncio.sleep(0.01)
        opened.closing.begin(Stopping("stopping"))
        assert [code(await one[0].read()) for one in (half, waiting)] == [(503, "stopping")] * 2
        idle[1].write(CALL)
        assert code(await idle[0].read()) == (503, "stopping")
        assert code(await opened.say(CALL)) == (503, "stopping")
        assert answers(await running[0].read()) == [(200, {"n": 2})]

    run(check)
