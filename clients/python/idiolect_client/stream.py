"""A reply that arrives in pieces."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

import httpx

from idiolect_client.results import Generation
from idiolect_client.transcript import Transcript


class Streamed:
    """What both kinds of stream have in common."""

    def __init__(self) -> None:
        self._response: httpx.Response | None = None
        self._transcript = Transcript()

    @property
    def generation(self) -> Generation:
        """The whole reply, once the stream was iterated to its end.

        Raises:
            RuntimeError: the stream has not ended, or was interrupted.
        """
        if self._transcript.generation is None:
            raise RuntimeError("The generation is known when the stream was iterated to its end.")
        return self._transcript.generation

    def _opened(self) -> httpx.Response:
        if self._response is None:
            raise RuntimeError("A stream is opened by its with statement.")
        return self._response


class Stream(Streamed):
    """A reply that arrives in pieces: iterate it, inside of its with statement, for the text.

    Raises:
        TransportError: on entering, the server did not answer.
        APIError: on entering or while iterating, the server answered with an error.
        StreamInterrupted: while iterating, the stream ended before its last event.
        UnexpectedResponse: while iterating, an event is not what an Idiolect server sends.
        RuntimeError: while iterating, the stream is not open or was iterated before.
    """

    def __init__(self, open_response: Callable[[], httpx.Response]) -> None:
        super().__init__()
        self._open_response = open_response

    def __enter__(self) -> Self:
        self._response = self._open_response()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened().close()

    def __iter__(self) -> Iterator[str]:
        try:
            for chunk in self._opened().iter_bytes():
                yield from self._transcript.feed(chunk)
        except httpx.RequestError as error:
            self._transcript.end(error)
        else:
            self._transcript.end()


class AsyncStream(Streamed):
    """A reply that arrives in pieces: iterate it, inside of its async with statement, for the text.

    Raises:
        TransportError: on entering, the server did not answer.
        APIError: on entering or while iterating, the server answered with an error.
        StreamInterrupted: while iterating, the stream ended before its last event.
        UnexpectedResponse: while iterating, an event is not what an Idiolect server sends.
        RuntimeError: while iterating, the stream is not open or was iterated before.
    """

    def __init__(self, open_response: Callable[[], Awaitable[httpx.Response]]) -> None:
        super().__init__()
        self._open_response = open_response

    async def __aenter__(self) -> Self:
        self._response = await self._open_response()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened().aclose()

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for chunk in self._opened().aiter_bytes():
                for piece in self._transcript.feed(chunk):
                    yield piece
        except httpx.RequestError as error:
            self._transcript.end(error)
        else:
            self._transcript.end()
