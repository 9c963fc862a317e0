"""The client against a real HTTP server whose answers are scripted."""

import asyncio
import json
import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

import idiolect_client as ic
from idiolect_client import pauses
from idiolect_client.events import Event, EventDecoder

PERSONALIZATION = {"state": "stored", "bundle": "b1", "votes": 3}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 4}
END = {"generation_id": "gen-1", "finish_reason": "stop", "usage": USAGE, "personalization": PERSONALIZATION}
USER = {
    "user_id": "ada",
    "known": True,
    "state": "inferred",
    "votes": 3,
    "bundle": "b1",
    "profile": None,
    "effective_votes": 2,
    "outdated_votes": 0,
    "uncertainty": 0.4,
    "belief": {"brief": 0.9, "chatty": 0.1},
    "code": [0.5, 0.5],
    "trained_votes": 1,
}
VOTE = {"vote_id": "v1", "votes": 4, "duplicate": False, "state": "inferred", "effective_votes": 3, "effect": "counted"}
GENERATION = ic.Generation("gen-1", "Grüß\u2028dich", "stop", ic.Usage(5, 2, 4), ic.Personalization("stored", "b1", 3))

ERRORS = [
    ("invalid_request", 422, ic.InvalidRequest),
    ("no_user_turn", 422, ic.NoUserTurn),
    ("prompt_too_long", 413, ic.PromptTooLong),
    ("body_too_large", 413, ic.BodyTooLarge),
    ("unknown_generation", 404, ic.UnknownGeneration),
    ("unknown_question", 404, ic.UnknownQuestion),
    ("unknown_vote", 404, ic.UnknownVote),
    ("idempotency_conflict", 409, ic.IdempotencyConflict),
    ("unauthorized", 401, ic.Unauthorized),
    ("store_unavailable", 503, ic.StoreUnavailable),
    ("not_ready", 503, ic.NotReady),
    ("engine_dead", 503, ic.EngineDead),
    ("vote_too_large", 413, ic.VoteTooLarge),
    ("too_many_votes", 429, ic.TooManyVotes),
    ("store_error", 500, ic.StoreRefused),
    ("store_refused", 500, ic.StoreRefused),
    ("store_denied", 500, ic.StoreRefused),
    ("store_full", 507, ic.StoreFull),
    ("overloaded", 429, ic.Overloaded),
    ("deadline_exceeded", 504, ic.DeadlineExceeded),
    ("generation_failed", 500, ic.GenerationFailed),
    ("not_found", 404, ic.NotFound),
    ("from_the_future", 418, ic.APIError),
]


def sse(name: str, data: object, newline: str = "\r\n") -> bytes:
    text = json.dumps(data, ensure_ascii=False)
    return f"event: {name}{newline}data: {text}{newline}{newline}".encode()


START = sse("start", {"generation_id": "gen-1", "personalization": PERSONALIZATION})
# U+2028 is a line end to str.splitlines, and to httpx, but not to server-sent events.
TEXT = [sse("text", {"text": "Grüß"}), b": ping\r\n\r\n", sse("text", {"text": "\u2028dich"}, "\n")]
DONE = sse("done", END)


def error_body(code: str, *, retryable: bool = False) -> dict[str, object]:
    return {"error": {"code": code, "message": "It failed.", "hint": "Try this.", "retryable": retryable}}


@dataclass
class Answer:
    """One scripted answer: JSON, or chunks. `cut` breaks the connection in place of the last chunk's end."""

    status: int = 200
    body: object = None
    chunks: list[bytes] = field(default_factory=list)
    cut: bool = False
    retry_after: str | None = None


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, object] | None


class Script(ThreadingHTTPServer):
    """Gives its answers in order, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body))
        self.give(self.server.answers.pop(0))

    do_POST = do_PUT = do_DELETE = do_GET

    def give(self, answer: Answer) -> None:
        self.close_connection = answer.cut
        if answer.cut and not answer.chunks:
            return
        self.send_response(answer.status)
        if answer.retry_after is not None:
            self.send_header("Retry-After", answer.retry_after)
        if answer.chunks:
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in answer.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if not answer.cut:
                self.wfile.write(b"0\r\n\r\n")
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the tests look at what was seen."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_S", 0.001)
    monkeypatch.setattr(pauses, "POLL_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Script]:
    with Script() as script:
        # Connections that a client keeps open must not hold up the end of the test.
        script.daemon_threads = True
        script.block_on_close = False
        thread = threading.Thread(target=script.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        script.shutdown()
        thread.join()


@pytest.fixture
def client(server: Script) -> Iterator[ic.Client]:
    with ic.Client(server.url, api_key="idk-1", timeout_s=5) as client:
        yield client


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_generate(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(body={**END, "text": "Grüß\u2028dich", "new_field": 1})]
    assert client.generate("hi", user_id="ada", max_tokens=9, stop=["\n"], seed=None) == GENERATION
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.headers["authorization"]) == ("POST", "/generate", "Bearer idk-1")
    assert seen.body == {"prompt": "hi", "user_id": "ada", "max_tokens": 9, "stop": ["\n"]}


def test_generate_from_messages(server: Script) -> None:
    server.answers = [Answer(body={**END, "text": ""})]
    with ic.Client(server.url) as client:
        client.generate(messages=[{"role": "user", "content": "hi"}], temperature=0.0)
    assert server.seen[0].body == {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.0}
    assert "authorization" not in server.seen[0].headers


def test_a_misspelt_option_is_not_sent(server: Script, client: ic.Client) -> None:
    with pytest.raises(TypeError, match="max_token"):
        client.generate("hi", max_token=3)  # type: ignore[call-arg]
    assert server.seen == []


@pytest.mark.parametrize("body", [b"<html>", [], {**END}, {**END, "text": 1}, {**END, "text": "", "usage": 1}])
def test_a_success_that_is_no_generation(server: Script, client: ic.Client, body: object) -> None:
    server.answers = [Answer(body=body)]
    with pytest.raises(ic.UnexpectedResponse):
        client.generate("hi")


@pytest.mark.parametrize(("code", "status", "cls"), ERRORS)
def test_each_error_code(server: Script, client: ic.Client, code: str, status: int, cls: type[ic.APIError]) -> None:
    server.answers = [Answer(status, error_body(code))]
    with pytest.raises(ic.APIError) as caught:
        client.generate("hi")
    error = caught.value
    assert type(error) is cls
    assert (error.code, error.message, error.hint) == (code, "It failed.", "Try this.")
    assert (error.retryable, error.status, str(error)) == (False, status, "It failed. Try this.")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    assert len(server.seen) == 1


def test_an_error_of_a_proxy(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(502, b"<html>Bad Gateway")] * 3
    with pytest.raises(ic.APIError, match="502: <html>Bad Gateway") as caught:
        client.user("ada")
    assert (caught.value.code, caught.value.status) == ("unknown", 502)
    assert len(server.seen) == 3


def test_generate_repeats_what_the_server_calls_retryable(server: Script, client: ic.Client) -> None:
    server.answers = [
        Answer(503, error_body("engine_dead", retryable=True)),
        Answer(body={**END, "text": "Grüß\u2028dich"}),
    ]
    assert client.generate("hi") == GENERATION
    assert len(server.seen) == 2


@pytest.mark.parametrize(("code", "status"), [("overloaded", 429), ("deadline_exceeded", 504)])
def test_a_server_that_asks_to_wait_is_heeded(
    server: Script, client: ic.Client, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("idiolect_client.client.time.sleep", waits.append)
    busy = Answer(status, error_body(code, retryable=True), retry_after="7")
    server.answers = [busy, Answer(body={**END, "text": "Grüß\u2028dich"})]
    assert client.generate("hi") == GENERATION
    assert 7 <= waits[0] <= 9
    later = Answer(status, error_body(code, retryable=True), retry_after="3600")
    server.answers = [busy, later]
    with pytest.raises(ic.APIError) as caught:
        client.generate("hi")
    assert caught.value.retry_after_s == 3600
    assert len(waits) == 2
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)


@pytest.mark.parametrize("asked", ["", "soon", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 40])
def test_a_wait_that_is_no_number_of_seconds_is_not_heeded(server: Script, client: ic.Client, asked: str) -> None:
    server.answers = [Answer(429, error_body("overloaded", retryable=True), retry_after=asked)]
    server.answers += [Answer(body={**END, "text": "Grüß\u2028dich"})]
    assert client.generate("hi") == GENERATION


def test_an_asyncio_client_waits_too(server: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    async def ask() -> ic.Generation:
        async with ic.AsyncClient(server.url) as client:
            return await client.generate("hi")

    monkeypatch.setattr("idiolect_client.async_client.asyncio.sleep", sleep)
    server.answers = [Answer(429, error_body("overloaded", retryable=True), retry_after="3")]
    server.answers += [Answer(body={**END, "text": "Grüß\u2028dich"})]
    assert asyncio.run(ask()) == GENERATION
    assert 3 <= waits[0] <= 4


def test_generate_is_not_repeated_once_it_was_sent(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(cut=True)]
    with pytest.raises(ic.TransportError) as caught:
        client.generate("hi")
    assert caught.value.sent
    assert len(server.seen) == 1


def test_a_refused_connection_is_tried_again(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("idiolect_client.client.time.sleep", waits.append)
    with ic.Client(nowhere, max_retries=2) as client, pytest.raises(ic.TransportError) as caught:
        client.generate("hi")
    assert not caught.value.sent
    assert len(waits) == 2


@pytest.mark.parametrize("failure", [Answer(503, error_body("store_unavailable", retryable=True)), Answer(cut=True)])
def test_feedback_repeats_itself_under_one_key(server: Script, client: ic.Client, failure: Answer) -> None:
    server.answers = [failure, Answer(body=VOTE)]
    vote = client.feedback(user_id="ada", chosen="a", rejected="b", generation_id="gen-1")
    assert vote == ic.Vote("v1", 4, False, "inferred", 3, "counted")
    first, second = server.seen
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len(first.headers["idempotency-key"]) == 32
    assert first.body == second.body == {"user_id": "ada", "chosen": "a", "rejected": "b", "generation_id": "gen-1"}


def test_feedback_keys_differ_unless_given(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(body=VOTE)] * 3
    for key in (None, None, "mine"):
        client.feedback(user_id="ada", chosen="a", rejected="b", prompt="hi", idempotency_key=key)
    keys = [seen.headers["idempotency-key"] for seen in server.seen]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_a_thumb_and_an_edit(server: Script, client: ic.Client) -> None:
    failure = Answer(503, error_body("store_unavailable", retryable=True))
    server.answers = [failure, *[Answer(body=VOTE)] * 3]
    vote = client.thumb("down", user_id="ada", generation_id="gen-1")
    assert vote == ic.Vote("v1", 4, False, "inferred", 3, "counted")
    client.thumb("up", user_id="ada", prompt="Why?", reply="So.", consent=True, idempotency_key="mine")
    client.edit("So!", user_id="ada", generation_id="gen-1")
    first, again, *others = server.seen
    assert first.path == "/feedback"
    assert first.body == again.body == {"user_id": "ada", "thumb": "down", "generation_id": "gen-1"}
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    text = {"user_id": "ada", "thumb": "up", "prompt": "Why?", "reply": "So.", "consent": True}
    assert [seen.body for seen in others] == [text, {"user_id": "ada", "edit": "So!", "generation_id": "gen-1"}]
    assert others[0].headers["idempotency-key"] == "mine"


QUESTION = {
    "question_id": "q1",
    "messages": [{"role": "user", "content": "Why?"}],
    "first": "So.",
    "second": "Well.",
    "expected_gain": 0.4,
}


def test_a_question_and_its_answer(server: Script, client: ic.Client) -> None:
    server.answers = [
        Answer(body={"user_id": "a/b", "question": QUESTION, "answered": 2}),
        Answer(body=VOTE),
        Answer(body={"user_id": "a/b", "question": None, "answered": 3}),
        Answer(body={"user_id": "a/b"}),
    ]
    asked = client.question("a/b")
    assert asked == ic.Question("q1", [{"role": "user", "content": "Why?"}], "So.", "Well.", 0.4)
    client.feedback(
        user_id="a/b", question_id=asked.question_id, chosen=asked.first, rejected=asked.second, consent=True
    )
    body = {"user_id": "a/b", "question_id": "q1", "chosen": "So.", "rejected": "Well.", "consent": True}
    assert server.seen[1].body == body
    assert client.question("a/b", skip=["q1", "q&2"]) is None
    assert server.seen[0].path == "/users/a%2Fb/question"
    assert server.seen[2].path == "/users/a%2Fb/question?skip=q1&skip=q%262"
    with pytest.raises(ic.UnexpectedResponse):
        client.question("a/b")


def test_two_candidates(server: Script, client: ic.Client) -> None:
    whole = {**END, "text": "Grüß\u2028dich"}
    server.answers = [
        Answer(body={"candidates": [whole, whole]}),
        Answer(body={"candidates": [whole]}),
        Answer(body=VOTE),
    ]
    assert client.candidates("hi", user_id="ada") == (GENERATION, GENERATION)
    assert server.seen[0].body == {"prompt": "hi", "user_id": "ada", "candidates": 2}
    with pytest.raises(ic.UnexpectedResponse):
        client.candidates("hi")
    client.feedback(user_id="ada", chosen_generation_id="gen-1", rejected_generation_id="gen-2")
    assert server.seen[2].body == {"user_id": "ada", "chosen_generation_id": "gen-1", "rejected_generation_id": "gen-2"}


def test_profile_votes_and_users_are_taken_back(server: Script, client: ic.Client) -> None:
    receipt = {"user_id": "..", "erased_at": "2026-01-01T00:00:00+00:00", "votes": 2, "generations": 1, "codes": 1}
    server.answers = [Answer(body={"profile": None}), Answer(body={"vote_id": "v1", "votes": 1})]
    server.answers += [Answer(404, error_body("unknown_vote")), Answer(body={**receipt, "profiles": 0})]
    client.set_profile("..", None)
    client.take_back("..", "3-17-0")
    with pytest.raises(ic.UnknownVote):
        client.take_back("..", "3-17-0")
    assert client.erase("..").votes == 2
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("PUT", "/users/%2E%2E/profile"),
        ("DELETE", "/users/%2E%2E/votes/3-17-0"),
        ("DELETE", "/users/%2E%2E/votes/3-17-0"),
        ("DELETE", "/users/%2E%2E"),
    ]
    assert server.seen[0].body == {"profile": None}


@pytest.mark.parametrize("user_id", ["ada", "a/b c?é", "..", "%2F", "/x#y;z", "a+b&c=d"])
def test_user_ids_are_one_path_segment(server: Script, client: ic.Client, user_id: str) -> None:
    server.answers = [Answer(body={**USER, "user_id": user_id})]
    assert client.user(user_id) == ic.User(
        user_id, True, "inferred", 3, "b1", None, 2, 0, 0.4, {"brief": 0.9, "chatty": 0.1}, 1
    )
    prefix, segment = server.seen[0].path.rsplit("/", 1)
    assert (prefix, unquote(segment)) == ("/users", user_id)
    assert set(segment).isdisjoint("?#.")


LISTED = {"user_id": "ada", "votes": 2, "has_profile": False}
GIVEN = {
    "vote_id": "3-17-0",
    "given_at": "2026-01-01T00:00:00.000+00:00",
    "messages": [{"role": "user", "content": "Hi"}],
    "chosen": "a",
    "rejected": "b",
    "effect": "counted",
    "consent": True,
}
PAGES = [
    Answer(body={"users": [LISTED, LISTED], "cursor": "x+y"}),
    Answer(body={"users": [], "cursor": "z"}),
    Answer(body={"users": [{**LISTED, "user_id": "bob"}], "cursor": None}),
    Answer(body={"user_id": "a/b", "votes": [GIVEN], "cursor": "W"}),
    Answer(body={"user_id": "a/b", "votes": [GIVEN], "cursor": None}),
]
PATHS = ["/users", "/users?cursor=x%2By", "/users?cursor=z", "/users/a%2Fb/votes", "/users/a%2Fb/votes?cursor=W"]


def test_users_and_votes_come_from_all_pages(server: Script, client: ic.Client) -> None:
    server.answers = list(PAGES)
    assert [one.user_id for one in client.users()] == ["ada", "ada", "bob"]
    assert list(client.votes("a/b")) == [ic.GivenVote(**GIVEN)] * 2
    assert [seen.path for seen in server.seen] == PATHS


def test_an_asyncio_client_walks_too(server: Script) -> None:
    server.answers = list(PAGES)

    async def walk() -> None:
        async with ic.AsyncClient(server.url) as client:
            assert [one.user_id async for one in client.users()] == ["ada", "ada", "bob"]
            assert [one async for one in client.votes("a/b")] == [ic.GivenVote(**GIVEN)] * 2

    asyncio.run(walk())
    assert [seen.path for seen in server.seen] == PATHS


@pytest.mark.parametrize("body", [{}, {"users": {}}, {"users": []}, {"users": [{}], "cursor": None}, {"cursor": 5}])
def test_what_is_no_page_is_told(server: Script, client: ic.Client, body: dict[str, object]) -> None:
    server.answers = [Answer(body=body)]
    with pytest.raises(ic.UnexpectedResponse):
        list(client.users())


def test_a_degraded_user_has_no_count_of_votes(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(body={**USER, "user_id": "a", "state": "degraded", "votes": None})]
    assert client.user("a").votes is None


def test_a_base_url_may_have_a_path(server: Script) -> None:
    server.answers = [Answer(body={**END, "text": ""})]
    with ic.Client(f"{server.url}/idiolect/") as client:
        client.generate("hi")
    assert server.seen[0].path == "/idiolect/generate"


def test_wait_until_ready(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(503, {"status": "starting"})] * 4 + [Answer(body={"status": "ready", "store": "ok"})]
    client.wait_until_ready(timeout_s=10)
    assert [seen.path for seen in server.seen] == ["/health/ready"] * 5


def test_the_wait_ends(server: Script, client: ic.Client, nowhere: str) -> None:
    server.answers = [Answer(503, {"status": "starting"})] * 100
    with pytest.raises(ic.NotReady, match="starting"):
        client.wait_until_ready(timeout_s=0.05)
    with ic.Client(nowhere) as lost, pytest.raises(ic.TransportError):
        lost.wait_until_ready(timeout_s=0.05)


def test_stream(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(chunks=[START, *TEXT, DONE])]
    with client.stream("hi", user_id="ada") as stream:
        pieces = iter(stream)
        assert next(pieces) == "Grüß"
        with pytest.raises(RuntimeError, match="to its end"):
            _ = stream.generation
        assert list(pieces) == ["\u2028dich"]
    assert stream.generation == GENERATION
    assert server.seen[0].body == {"prompt": "hi", "user_id": "ada", "stream": True}


def test_a_stream_in_single_bytes(server: Script, client: ic.Client) -> None:
    whole = b"".join([START, *TEXT, DONE])
    server.answers = [Answer(chunks=[whole[i : i + 1] for i in range(len(whole))])]
    with client.stream("hi") as stream:
        assert list(stream) == ["Grüß", "\u2028dich"]
    assert stream.generation == GENERATION


@pytest.mark.parametrize("cut", [True, False])
def test_an_interrupted_stream(server: Script, client: ic.Client, cut: bool) -> None:
    server.answers = [Answer(chunks=[START, *TEXT, DONE[:-4]], cut=cut)]
    with client.stream("hi") as stream:
        pieces = iter(stream)
        assert [next(pieces), next(pieces)] == ["Grüß", "\u2028dich"]
        with pytest.raises(ic.StreamInterrupted) as caught:
            next(pieces)
    assert caught.value.text == "Grüß\u2028dich"
    assert len(server.seen) == 1
    with pytest.raises(RuntimeError):
        _ = stream.generation


def test_a_break_after_the_last_event_costs_nothing(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(chunks=[START, *TEXT, DONE], cut=True)]
    with client.stream("hi") as stream:
        list(stream)
    assert stream.generation == GENERATION


def test_an_error_event_is_raised_and_not_retried(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(chunks=[START, TEXT[0], sse("error", error_body("engine_dead", retryable=True))])]
    with client.stream("hi") as stream:
        pieces = iter(stream)
        assert next(pieces) == "Grüß"
        with pytest.raises(ic.EngineDead) as caught:
            next(pieces)
    assert (caught.value.status, caught.value.retryable, len(server.seen)) == (200, True, 1)


def test_a_stream_that_is_refused(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(503, error_body("not_ready", retryable=True)), Answer(413, error_body("prompt_too_long"))]
    with pytest.raises(ic.PromptTooLong), client.stream("hi"):
        pass
    assert len(server.seen) == 2


def test_a_stream_left_early_frees_its_connection(server: Script, client: ic.Client) -> None:
    server.answers = [Answer(chunks=[START, *TEXT, DONE]), Answer(body={**END, "text": "Grüß\u2028dich"})]
    with client.stream("hi") as stream:
        next(iter(stream))
    assert client.generate("hi") == GENERATION


def test_a_stream_needs_its_with_statement(server: Script, client: ic.Client) -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        list(client.stream("hi"))
    assert server.seen == []


def test_the_decoder_does_not_care_where_chunks_end() -> None:
    whole = START + b"".join(TEXT) + b"id: 7\ndata:a\ndata: b\n\nevent: empty\n\n" + DONE + b"data: unfinished\n"
    events = list(EventDecoder().feed(whole))
    assert [event.name for event in events] == ["start", "text", "text", "message", "done"]
    assert events[3] == Event("message", "a\nb")
    for cut in range(len(whole) + 1):
        decoder = EventDecoder()
        assert [*decoder.feed(whole[:cut]), *decoder.feed(whole[cut:])] == events


def test_the_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_S", 1.0)
    waits = list(pauses.backoff(6))
    for wait, longest in zip(waits, [1, 2, 4, 5, 5, 5], strict=True):
        assert longest / 2 <= wait <= longest
    assert list(pauses.backoff(0)) == []
    assert list(pauses.until(0)) == []


def test_async(server: Script) -> None:
    whole = {**END, "text": "Grüß\u2028dich"}
    user = {**USER, "user_id": "a/b"}
    server.answers = [
        Answer(503, {"status": "starting"}),
        Answer(body={"status": "ready"}),
        Answer(body=whole),
        Answer(503, error_body("store_unavailable", retryable=True)),
        *[Answer(body=VOTE)] * 3,
        Answer(body=user),
        Answer(chunks=[START, *TEXT, DONE]),
    ]

    async def talk() -> None:
        async with ic.AsyncClient(server.url, api_key="idk-1", timeout_s=5) as client:
            await client.wait_until_ready(timeout_s=10)
            assert await client.generate("hi", user_id="a/b") == GENERATION
            vote = await client.feedback(user_id="a/b", chosen="a", rejected="b", prompt="hi")
            assert vote == ic.Vote("v1", 4, False, "inferred", 3, "counted")
            assert await client.thumb("up", user_id="a/b", prompt="hi", reply="a") == vote
            assert await client.edit("b", user_id="a/b", prompt="hi", reply="a") == vote
            assert (await client.user("a/b")).effective_votes == 2
            async with client.stream("hi") as stream:
                assert [piece async for piece in stream] == ["Grüß", "\u2028dich"]
            assert stream.generation == GENERATION

    asyncio.run(talk())
    assert server.answers == []
    assert server.seen[3].headers["idempotency-key"] == server.seen[4].headers["idempotency-key"]
    assert server.seen[5].body == {"user_id": "a/b", "thumb": "up", "prompt": "hi", "reply": "a"}
    assert server.seen[6].body == {"user_id": "a/b", "edit": "b", "prompt": "hi", "reply": "a"}
    assert server.seen[7].path == "/users/a%2Fb"
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer idk-1"}


def test_async_failures(server: Script, nowhere: str) -> None:
    server.answers = [
        Answer(422, error_body("no_user_turn")),
        Answer(chunks=[START, *TEXT], cut=True),
        Answer(chunks=[START, sse("error", error_body("engine_dead"))]),
        Answer(401, error_body("unauthorized")),
    ]

    async def fail() -> None:
        async with ic.AsyncClient(server.url, timeout_s=5) as client:
            with pytest.raises(ic.NoUserTurn):
                await client.generate(messages=[])
            for expected in (ic.StreamInterrupted, ic.EngineDead):
                async with client.stream("hi") as stream:
                    with pytest.raises(expected):
                        _ = [piece async for piece in stream]
            with pytest.raises(ic.Unauthorized):
                async with client.stream("hi"):
                    pass
        async with ic.AsyncClient(nowhere, max_retries=1) as lost:
            with pytest.raises(ic.TransportError):
                await lost.generate("hi")

    asyncio.run(fail())
    assert server.answers == []
