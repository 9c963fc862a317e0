"""The client for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from functools import partial
from types import TracebackType
from typing import Literal, Self, Unpack

import httpx

from idiolect_client import pauses, request
from idiolect_client.errors import APIError, IdiolectClientError, api_error, transport_error
from idiolect_client.request import Comparison, Judged, Options, Request
from idiolect_client.results import (
    Erasure,
    Generation,
    GivenVote,
    ListedUser,
    Question,
    Status,
    User,
    Vote,
    parse,
    parse_candidates,
    parse_page,
    parse_question,
)
from idiolect_client.stream import AsyncStream


class AsyncClient:
    """A connection pool to one Idiolect server. The tasks of one event loop may share it.

    `timeout_s` bounds each wait for the server, such as that for the next piece of a stream, not a whole call.
    `max_retries` is how often a call is repeated where that is safe.

    Raises:
        httpx.InvalidURL: base_url is not a URL.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout_s: float = 120.0,
        max_retries: int = 2,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout_s)
        self._max_retries = max_retries

    async def generate(self, prompt: str | None = None, **options: Unpack[Options]) -> Generation:
        """Get a reply to a prompt or to messages.

        Raises:
            APIError: the server answered with an error, such as PromptTooLong or EngineDead.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not a generation.
        """
        response = await self._send(request.generation(prompt, **options))
        return parse(Generation, response.content)

    def stream(self, prompt: str | None = None, **options: Unpack[Options]) -> AsyncStream:
        """Get a reply piece by piece. The async with statement of the stream sends the request.

        Raises nothing itself: entering and iterating the stream raise what AsyncStream says.
        """
        outgoing = request.generation(prompt, **options, stream=True)
        return AsyncStream(partial(self._send, outgoing, stream=True))

    async def candidates(self, prompt: str | None = None, **options: Unpack[Options]) -> tuple[Generation, Generation]:
        """Get two replies for the user to compare; `feedback` takes their ids.

        Raises:
            APIError: the server answered with an error, such as PromptTooLong or EngineDead.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not two generations.
        """
        return parse_candidates((await self._send(request.candidates(prompt, options))).content)

    async def feedback(
        self, *, user_id: str, idempotency_key: str | None = None, **comparison: Unpack[Comparison]
    ) -> Vote:
        """Tell which of two replies a user prefers: to a prompt, to messages, in a generation's place, to a question,
        or of two candidates.

        Without an idempotency_key, each call is a vote of its own.

        Raises:
            APIError: the server answered with an error, such as UnknownGeneration or StoreUnavailable.
            TransportError: the server did not answer; the vote may have been counted.
            UnexpectedResponse: the answer is not a vote.
        """
        return parse(Vote, (await self._send(request.feedback(user_id, idempotency_key, comparison))).content)

    async def thumb(
        self,
        thumb: Literal["up", "down"],
        *,
        user_id: str,
        idempotency_key: str | None = None,
        **judged: Unpack[Judged],
    ) -> Vote:
        """Tell whether a user likes one reply: that of a generation, or a text. It counts less than a comparison.

        Raises:
            APIError: the server answered with an error, such as UnknownGeneration or StoreUnavailable.
            TransportError: the server did not answer; the vote may have been counted.
            UnexpectedResponse: the answer is not a vote.
        """
        return parse(Vote, (await self._send(request.thumb(thumb, user_id, idempotency_key, judged))).content)

    async def edit(
        self, edit: str, *, user_id: str, idempotency_key: str | None = None, **judged: Unpack[Judged]
    ) -> Vote:
        """Tell what a user made of one reply: that of a generation, or a text.

        Raises:
            APIError: the server answered with an error, such as UnknownGeneration or StoreUnavailable.
            TransportError: the server did not answer; the vote may have been counted.
            UnexpectedResponse: the answer is not a vote.
        """
        return parse(Vote, (await self._send(request.edit(edit, user_id, idempotency_key, judged))).content)

    async def question(self, user_id: str, skip: Collection[str] = ()) -> Question | None:
        """Get what to ask a user next: the two replies whose comparison would tell most, None if nothing would.

        Args:
            user_id: the user.
            skip: ids of questions that the user does not care about, which are not asked again.

        Raises:
            APIError: the server answered with an error, such as Unauthorized.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not a question.
        """
        return parse_question((await self._send(request.question(user_id, skip))).content)

    async def set_profile(self, user_id: str, profile: str | None) -> None:
        """Store what a user says in words, for every later reply; None forgets it.

        Raises:
            APIError: the server answered with an error, such as InvalidRequest.
            TransportError: the server did not answer.
        """
        await self._send(request.profile(user_id, profile))

    async def take_back(self, user_id: str, vote_id: str) -> None:
        """Take one vote back, as if it had never been given.

        Raises:
            UnknownVote: the user has no such vote.
            APIError: the server answered with another error.
            TransportError: the server did not answer; the vote may be gone.
        """
        await self._send(request.vote_taken_back(user_id, vote_id))

    async def erase(self, user_id: str) -> Erasure:
        """Erase everything of a user. Erasing an unknown one is no error.

        Raises:
            APIError: the server answered with an error, such as StoreUnavailable.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not a receipt.
        """
        return parse(Erasure, (await self._send(request.erasure(user_id))).content)

    async def user(self, user_id: str) -> User:
        """Get what the server knows of a user.

        Raises:
            APIError: the server answered with an error, such as Unauthorized.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not a user.
        """
        return parse(User, (await self._send(request.user(user_id))).content)

    async def users(self) -> AsyncIterator[ListedUser]:
        """Walk through the users who have voted or have a profile, in no order. One may come twice, or be missed who
        came meanwhile.

        Raises:
            APIError: the server answered with an error, such as StoreUnavailable.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is no page of users.
        """
        cursor, more = None, True
        while more:
            page, cursor = parse_page(ListedUser, "users", (await self._send(request.users(cursor))).content)
            for listed in page:
                yield listed
            more = cursor is not None

    async def votes(self, user_id: str) -> AsyncIterator[GivenVote]:
        """Walk through a user's votes, the newest first; `take_back` takes their ids.

        Raises:
            APIError: the server answered with an error, such as StoreUnavailable.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is no page of votes.
        """
        cursor, more = None, True
        while more:
            page, cursor = parse_page(GivenVote, "votes", (await self._send(request.votes(user_id, cursor))).content)
            for vote in page:
                yield vote
            more = cursor is not None

    async def status(self) -> Status:
        """Get what the server serves, and whether it learns from votes.

        Raises:
            APIError: the server answered with an error, such as NotReady.
            TransportError: the server did not answer.
            UnexpectedResponse: the answer is not a status.
        """
        return parse(Status, (await self._send(request.status())).content)

    async def wait_until_ready(self, timeout_s: float = 300.0) -> None:
        """Wait until the server can answer requests. One whose store is down can: its replies are degraded.

        Raises:
            NotReady: the time is up and the server is still starting.
            TransportError: the time is up and the server cannot be reached.
            APIError: the server answered with an error.
        """
        await self._send(request.ready(), pauses.until(timeout_s))

    async def aclose(self) -> None:
        """Close all connections. Raises nothing."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(
        self, request: Request, waits: Iterator[float] | None = None, *, stream: bool = False
    ) -> httpx.Response:
        waits = pauses.backoff(self._max_retries) if waits is None else waits
        while True:
            try:
                return await self._attempt(request, stream)
            except IdiolectClientError as error:
                asked_s = error.retry_after_s if isinstance(error, APIError) else None
                if not request.may_repeat(error) or (wait_s := pauses.heeding(next(waits, None), asked_s)) is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _attempt(self, request: Request, stream: bool) -> httpx.Response:
        timeout = httpx.USE_CLIENT_DEFAULT if request.timeout_s is None else request.timeout_s
        outgoing = self._http.build_request(
            request.method, request.path, json=request.body, headers=request.headers, timeout=timeout
        )
        try:
            response = await self._http.send(outgoing, stream=stream)
            if response.is_success:
                return response
            # A stream that was refused: its body is the error, and reading it frees the connection.
            content = await response.aread()
        except httpx.RequestError as error:
            raise transport_error(error, request.method, request.path) from error
        raise api_error(response.status_code, content, response.headers)
