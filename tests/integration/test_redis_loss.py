"""A7: Redis is killed and comes back while the server serves. Replies go on, and no acknowledged vote is lost."""

import json
import threading
import time
import uuid

import redis

from idiolect_server.store import keyspace
from idiolect_server.store.keyspace import N_SHARDS
from tests.conftest import Live


def stored_votes(live: Live) -> list[dict[str, object]]:
    connection = redis.Redis.from_url(live.redis.url)
    streams = (connection.xrange(keyspace.of_shard("votes", shard)) for shard in range(N_SHARDS))
    return [json.loads(entry[b"vote"]) for stream in streams for _, entry in stream]


def test_votes_are_counted_once_for_each_key(live: Live):
    vote = {"user_id": "ida", "prompt": "p", "chosen": "a", "rejected": "b"}
    key = {"Idempotency-Key": "one"}
    first, again = (live.http.post("/feedback", json=vote, headers=key).json() for _ in range(2))
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["vote_id"] == again["vote_id"]
    assert again["votes"] == 1
    conflict = live.http.post("/feedback", json={**vote, "chosen": "c"}, headers=key)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert live.http.post("/feedback", json=vote).json()["votes"] == 2
    answer = live.http.get("/users/ida").json()
    assert (answer["known"], answer["votes"], answer["state"]) == (True, 2, "generic")
    assert not live.http.get("/users/nobody%2Fat%20all").json()["known"]


def test_feedback_by_generation(live: Live):
    reply = live.generate(user_id="ida", prompt="What is a comet?", max_tokens=4)
    vote = {"user_id": "ida", "generation_id": reply["generation_id"], "chosen": reply["text"], "rejected": "b"}
    assert live.http.post("/feedback", json=vote).status_code == 200
    kept = [vote for vote in stored_votes(live) if vote["generation_id"] == reply["generation_id"]]
    assert [vote["messages"] for vote in kept] == [[{"role": "user", "content": "What is a comet?"}]]
    # Neither one that never was, nor another user's: its prompt is not theirs to copy.
    for other in ({"generation_id": "gen-" + "0" * 32}, {"user_id": "otto"}):
        unknown = live.http.post("/feedback", json={**vote, **other})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_generation")


def test_redis_killed_while_serving(live: Live, evidence):
    before = live.generate(user_id="short-prose-plain-1", prompt="Hi", max_tokens=4)
    replies: list[tuple[float, int, str]] = []
    acknowledged: list[str] = []
    refused: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            body = {"user_id": "short-prose-plain-1", "prompt": "Hi", "max_tokens": 4}
            response = live.http.post("/generate", json=body)
            state = response.json()["personalization"]["state"] if response.status_code == 200 else ""
            replies.append((time.monotonic(), response.status_code, state))

    def vote() -> None:
        while not stop.is_set():
            key = uuid.uuid4().hex
            body = {"user_id": f"voter-{len(acknowledged) % 7}", "prompt": key, "chosen": "a", "rejected": "b"}
            response = live.http.post("/feedback", json=body, headers={"Idempotency-Key": key})
            if response.status_code == 200:
                acknowledged.append(key)
            else:
                assert response.json()["error"]["code"] == "store_unavailable"
                refused.append(response.status_code)
                time.sleep(0.05)

    threads = [threading.Thread(target=work) for work in (ask, ask, vote, vote)]
    for thread in threads:
        thread.start()
    outages = []
    for _ in range(3):
        time.sleep(2)
        live.redis.kill()
        began = time.monotonic()
        time.sleep(3)
        outages.append((began, time.monotonic()))
        live.redis.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()

    assert {status for _, status, _ in replies} == {200}
    during = [state for at, _, state in replies if any(a + 1.5 < at < b for a, b in outages)]
    assert during
    assert set(during) == {"degraded"}
    assert refused
    assert set(refused) == {503}
    after = live.generate(user_id="short-prose-plain-1", prompt="Hi", max_tokens=4)
    assert after["personalization"]["state"] == "stored"
    assert after["text"] == before["text"]

    found = [vote["messages"][0]["content"] for vote in stored_votes(live)]
    lost = set(acknowledged) - set(found)
    twice = [key for key in acknowledged if found.count(key) > 1]
    value = {
        "kills": 3,
        "generate_requests": len(replies),
        "generate_5xx": sum(status >= 500 for _, status, _ in replies),
        "degraded": sum(state == "degraded" for _, _, state in replies),
        "votes_acknowledged": len(acknowledged),
        "votes_lost": len(lost),
        "votes_twice": len(twice),
    }
    evidence("A7", value)
    assert not lost
    assert not twice
    for number in range(7):  # or their pairs are scored for minutes, beside the tests that follow
        assert live.http.delete(f"/users/voter-{number}").status_code == 200


def test_a_degraded_known_user_keeps_their_style(live: Live):
    """What was read before Redis went is served meanwhile; strangers get the generic reply."""
    request = {"prompt": "What is a comet?", "max_tokens": 12}
    known = live.generate(user_id="thorough-list-plain-1", **request)
    generic = live.generate(**request)
    live.redis.kill()
    time.sleep(0.5)  # until the server has noticed, what it keeps of users is as good as ever
    try:
        during, stranger = (live.generate(user_id=user, **request) for user in ("thorough-list-plain-1", "never-seen"))
    finally:
        live.redis.start()
    assert during["personalization"]["state"] == stranger["personalization"]["state"] == "degraded"
    assert during["text"] == known["text"]
    assert stranger["text"] == generic["text"]
    assert live.http.get("/health/ready").status_code == 200
