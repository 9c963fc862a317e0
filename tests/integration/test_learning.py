"""New users through the HTTP API: questions, answers, organic votes, profiles, export, erasure. Real vLLM and Redis.

The model is tiny and random, and has learnt two users who want opposite things: what is tested is the service.
"""

import asyncio
import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import redis

from idiolect.bank import NO_REPLY, pair_id
from idiolect.bundle import Bundle
from idiolect.prompt.chat import place
from idiolect_server.door.keys import digest
from idiolect_server.engine.injection import with_placeholders
from idiolect_server.prompt import Placed, UserTokens
from idiolect_server.store import keyspace
from idiolect_server.store.changes import CHANNEL
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.keyspace import N_SHARDS
from idiolect_server.store.record import decode_code
from idiolect_server.store.store import Store
from idiolect_server.users.scorer import MAX_TRIES
from idiolect_training.data.formats import read_format
from idiolect_training.data.preferences import Preference
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.policy import Policy
from tests.conftest import Live
from tests.live import Redis, memory_folder, running_server
from tests.parts.tiny import tiny_bundle

API_KEY = "idk-for-tests-only"


@dataclass
class Learning(Live):
    """A server whose bundle has a question bank, the policy behind the bundle, and the server's log."""

    bundle: Bundle
    policy: Policy
    log: Path
    connection: redis.Redis

    def post(self, path: str, **body: object) -> dict:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, path: str) -> dict:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def inferred(self, user_id: str) -> bytes | None:
        return self.connection.get(keyspace.inferred(self.bundle.bundle_id, user_id))

    def answer(self, user_id: str, question: dict, wants_short: bool, **more: str) -> dict:
        short, long = sorted((question["first"], question["second"]), key=len)
        chosen, rejected = (short, long) if wants_short else (long, short)
        body = {"user_id": user_id, "question_id": question["question_id"], "chosen": chosen, "rejected": rejected}
        return self.post("/feedback", **body, **more)


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Learning]:
    folder = tmp_path_factory.mktemp("learning")
    bundle, model, policy = tiny_bundle(folder, model_path)
    log = folder / "server.log"
    settings = {
        "bundle": str(bundle.path),
        "model": str(model),
        "api_keys": digest(API_KEY),
        "cache_dir": str(folder / "cache"),
    }
    with memory_folder() as memory:
        store = Redis(memory)
        store.start()
        try:
            with (
                log.open("wb") as file,
                running_server(file, redis_url=store.url, **settings) as (url, process),
                httpx.Client(base_url=url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=120) as http,
            ):
                yield Learning(url, http, store, process.pid, bundle, policy, log, redis.Redis.from_url(store.url))
        finally:
            store.stop()


def test_a_stranger_becomes_known_by_answers_alone(learning: Learning):
    before = learning.get("/users/nora")
    assert (before["known"], before["state"], before["effective_votes"]) == (False, "generic", 0)
    n_requests = [learning.metric(f'idiolect_engine_requests_total{{purpose="{p}"}}') for p in ("reply", "score")]
    asked, uncertainty, gains = [], 1.0, []
    while (question := learning.get("/users/nora/question")["question"]) is not None:
        asked.append(question["question_id"])
        gains.append(question["expected_gain"])
        vote = learning.answer("nora", question, wants_short=True)
        assert (vote["effect"], vote["state"], vote["effective_votes"]) == ("counted", "inferred", len(asked))
        known = learning.get("/users/nora")
        assert (known["state"], known["effective_votes"]) == ("inferred", len(asked))
        uncertainty = known["uncertainty"]
    assert learning.get("/users/nora/question")["reason"] == "nothing_worth_asking"
    assert 1 <= len(asked) == len(set(asked)) <= 4
    assert uncertainty < 0.95  # whether the taste is one that is known stays open too: 0.91 after two answers here
    assert min(gains) >= 0.02
    code = np.array(known["code"])
    assert sorted(known["belief"]) == ["brief", "chatty", "plain"]
    assert list(known["belief"].values()) == pytest.approx(sorted(known["code"], reverse=True), abs=1e-4)
    short, long = (learning.bundle.codes[list(learning.bundle.user_ids).index(user)] for user in ("short", "long"))
    assert np.linalg.norm(code - short) < np.linalg.norm(code - long)
    after = [learning.metric(f'idiolect_engine_requests_total{{purpose="{p}"}}') for p in ("reply", "score")]
    assert after == n_requests  # not one call of the model
    assert learning.generate(user_id="nora", prompt="Hi", max_tokens=2)["personalization"]["state"] == "inferred"


def test_the_server_says_what_it_serves_and_that_votes_count(learning: Learning):
    status = learning.get("/status")
    assert status == {
        "bundle": learning.bundle.bundle_id,
        "base_model": learning.bundle.manifest.base_model.name,
        "user_model": "cluster",
        "trained_users": 2,
        "cluster_names": ["brief", "plain", "chatty"],
        "questions": 4,
        "votes_count": True,
        "why_not": None,
        "store": "ok",
    }


def test_a_user_may_skip_what_does_not_matter(learning: Learning):
    first = learning.get("/users/olga/question")["question"]["question_id"]
    second = learning.get(f"/users/olga/question?skip={first}")
    assert second["question"]["question_id"] != first
    assert second["answered"] == 0
    everything_else = "&".join(f"skip={question.question_id}" for question in learning.bundle.bank.questions)
    nothing = learning.get(f"/users/olga/question?{everything_else}")
    assert (nothing["question"], nothing["reason"]) == (None, "all_skipped")
    assert learning.http.get("/users/olga/question?skip=x").status_code == 422


def test_a_question_is_answered_with_its_own_replies(learning: Learning):
    question = learning.get("/users/otto/question")["question"]
    body = {"user_id": "otto", "question_id": question["question_id"], "chosen": "x", "rejected": question["first"]}
    assert learning.http.post("/feedback", json=body).status_code == 422
    unknown = learning.http.post("/feedback", json={**body, "question_id": "0" * 16})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_question")


def test_codes_are_rebuilt_to_the_last_bit(learning: Learning, evidence):
    """C5: from the votes alone, in whatever order they came, and without those that were taken back."""
    bank = learning.bundle.bank
    ids = [question.question_id for question in bank.questions]
    for user_id, order in (("rita", ids), ("sven", ids[::-1])):
        for question_id in order:
            question = bank.questions[bank.index[question_id]].model_dump() | {"question_id": question_id}
            # Two people are shown the sides in two orders, which is part of what they say: here they are alike.
            learning.answer(user_id, question, wants_short=question_id != ids[1], shown_first="chosen")
    code = decode_code(learning.inferred("rita")[8:])[0].tobytes()
    assert decode_code(learning.inferred("sven")[8:])[0].tobytes() == code

    learning.connection.delete(keyspace.inferred(learning.bundle.bundle_id, "rita"))
    learning.connection.publish(CHANNEL, "changed rita")
    learning.get("/users/rita")
    assert decode_code(learning.inferred("rita")[8:])[0].tobytes() == code

    changed = learning.answer("sven", bank.questions[0].model_dump() | {"question_id": ids[0]}, wants_short=False)
    assert decode_code(learning.inferred("sven")[8:])[0].tobytes() != code
    taken = learning.http.delete(f"/users/sven/votes/{changed['vote_id']}")
    assert taken.json() == {"vote_id": changed["vote_id"], "votes": 4}
    assert decode_code(learning.inferred("sven")[8:])[0].tobytes() == code
    again = learning.http.delete(f"/users/sven/votes/{changed['vote_id']}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "unknown_vote")
    assert learning.http.delete(f"/users/rita/votes/{changed['vote_id']}").status_code == 404
    equal = {"replayed": True, "reversed_order": True, "vote_taken_back": True}
    evidence("C5", equal)


def test_an_organic_pair_is_scored_once_and_as_the_trainer_would(learning: Learning):
    pair = {"prompt": "What of it?", "chosen": "yes 77", "rejected": "no way 77 at all"}
    identity = pair_id([{"role": "user", "content": "What of it?"}], pair["chosen"], pair["rejected"])
    for user_id in ("tom", "uma"):
        vote = learning.post("/feedback", user_id=user_id, **pair)
        assert vote["effect"] in ("to_be_scored", "counted")  # the second one, if the scorer was quicker
    deadline = time.monotonic() + 60
    while learning.get("/users/uma")["effective_votes"] == 0 or learning.get("/users/tom")["effective_votes"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert learning.connection.get(keyspace.tries(learning.bundle.bundle_id, identity)) == b"1"
    assert learning.get("/users/uma")["state"] == "inferred"
    vote = learning.post("/feedback", user_id="uma", **pair)
    assert (vote["effect"], vote["state"], vote["effective_votes"]) == ("counted", "inferred", 1)
    assert learning.metric("idiolect_scoring_lag_seconds") < 60

    key = keyspace.margins(learning.bundle.bundle_id, keyspace.shard(identity))
    margins = np.frombuffer(learning.connection.hget(key, identity), "<f8")
    policy = learning.policy
    first, second = sorted((pair["chosen"], pair["rejected"]))
    preference = Preference(user_id="x", prompt=pair["prompt"], chosen=first, rejected=second)
    layout = policy.layout
    _, pairs = tokenize([preference], policy.tokenizer, layout, {}, 128, 64)
    import torch

    user_model = learning.bundle.user_model
    differences = []
    for k in range(3):
        tokens = torch.from_numpy(user_model.user_tokens(np.eye(3, dtype=np.float32)[k]))
        one, other = policy.score_tokens(pairs, tokens, 1)[0].tolist()
        differences.append(one - other)
    expected = np.array(differences) - np.array(differences) @ user_model.generic_code
    assert margins == pytest.approx([0.0, *expected], abs=1e-2)


def test_a_thumb_is_scored_alone_and_counts(learning: Learning):
    """By the log-ratio of the reply, which training has from the same policy; the other thumb moves the code back."""
    reply = learning.generate(user_id="ines", prompt="A thumb?", max_tokens=8)
    named = {"user_id": "ines", "generation_id": reply["generation_id"]}
    assert learning.post("/feedback", thumb="down", **named)["votes"] == 1
    deadline = time.monotonic() + 60
    while (down := learning.get("/users/ines"))["effective_votes"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    up = learning.post("/feedback", thumb="up", **named)
    assert (up["votes"], up["effective_votes"], up["effect"], up["state"]) == (2, 1, "counted", "inferred")

    asked = [{"role": "user", "content": "A thumb?"}]
    identity = pair_id(asked, reply["text"], NO_REPLY)
    key = keyspace.margins(learning.bundle.bundle_id, keyspace.shard(identity))
    margins = np.frombuffer(learning.connection.hget(key, identity), "<f8")
    thumb = Preference(user_id="x", prompt="A thumb?", chosen=NO_REPLY, rejected=reply["text"], kind="thumb")
    _, pairs = tokenize([thumb], learning.policy.tokenizer, learning.policy.layout, {}, 128, 64)
    import torch

    user_model = learning.bundle.user_model
    logps = []
    for k in range(3):
        tokens = torch.from_numpy(user_model.user_tokens(np.eye(3, dtype=np.float32)[k]))
        nothing, whole = learning.policy.score_tokens(pairs, tokens, 1)[0].tolist()
        assert nothing == 0
        logps.append(-whole)
    expected = np.array(logps) - np.array(logps) @ user_model.generic_code
    assert margins == pytest.approx([0.0, *expected], abs=1e-2)
    prior = learning.bundle.bank.mean
    liked = np.array(learning.get("/users/ines")["code"]) / prior
    assert (liked.argsort() == (-expected).argsort()).all()
    assert ((np.array(down["code"]) / prior).argsort() == expected.argsort()).all()

    edited = learning.post("/feedback", edit="yes 1", **named)
    assert (edited["votes"], edited["effect"] in ("to_be_scored", "counted")) == (3, True)


ASKED = {"role": "user", "content": "\nWhy?"}
CONVERSATIONS = {
    "alone": [ASKED],
    "system": [{"role": "system", "content": "Be brief."}, ASKED],
    "same system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "7 days?"}],
    "long system": [{"role": "system", "content": "Cite what you rely on, and be exact. " * 99}, ASKED],
    "quoting system": [{"role": "system", "content": "Never write <|im_start|>user yourself."}, ASKED],
    "turns": [ASKED, {"role": "assistant", "content": "So."}, ASKED],
    "system and turns": [{"role": "system", "content": " S"}, ASKED, {"role": "assistant", "content": ""}, ASKED],
    "answer first": [{"role": "assistant", "content": "Hello!"}, ASKED],
    "nobody asks": [{"role": "system", "content": "Say hello."}],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_chat_completions_have_user_tokens_where_generate_has_them(learning: Learning, name: str):
    """Of a bundle of the newer format, and where training had them."""
    said, layout = CONVERSATIONS[name], learning.bundle.manifest.layout
    assert layout.format_version == 2
    native = learning.generate(user_id="short", messages=said, max_tokens=8)
    model = learning.get("/v1/models")["data"][0]["id"]
    body = {"model": model, "user": "short", "messages": said, "max_tokens": 8, "temperature": 0}
    answer = learning.post("/v1/chat/completions", **body, return_token_ids=True)
    ids, offset = place(said, layout, learning.policy.tokenizer)
    expected = with_placeholders(Placed(ids, offset, UserTokens(np.zeros((2, 64), np.float32), "")))
    assert answer["prompt_token_ids"] == expected  # user tokens show as PLACEHOLDER_ID
    assert answer["usage"]["prompt_tokens"] == native["usage"]["prompt_tokens"] == len(ids) + 2
    assert answer["choices"][0]["message"]["content"] == native["text"]


def test_a_pair_whose_scoring_never_ends_is_given_up(learning: Learning):
    """It may be what ends the engine: then every server that starts would take it up again."""
    pair = {"prompt": "Deadly?", "chosen": "a", "rejected": "b"}
    identity = pair_id([{"role": "user", "content": "Deadly?"}], "a", "b")
    bundle_id = learning.bundle.bundle_id
    learning.connection.set(keyspace.tries(bundle_id, identity), MAX_TRIES)
    learning.post("/feedback", user_id="theo", **pair)
    deadline = time.monotonic() + 30
    kept = keyspace.margins(bundle_id, keyspace.shard(identity))
    while (margins := learning.connection.hget(kept, identity)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert margins == b"", "it was scored"
    assert f"{MAX_TRIES} tries have not ended" in learning.log.read_text()
    assert learning.get("/users/theo")["effective_votes"] == 0
    vote = learning.post("/feedback", user_id="theo", **pair)
    assert (vote["effect"], vote["state"]) == ("unscorable", "generic")


def test_while_nobody_votes_the_scorer_asks_redis_for_nothing(learning: Learning):
    def scripts_run() -> int:
        return learning.connection.info("commandstats")["cmdstat_eval"]["calls"]

    time.sleep(2)  # what the last vote has set off
    before = scripts_run()
    time.sleep(4)
    assert scripts_run() - before <= N_SHARDS, "it has looked at every stream more than once"
    learning.post("/feedback", user_id="quinn", prompt="After the quiet?", chosen="yes 5", rejected="not at all 5")
    deadline = time.monotonic() + 30
    while learning.get("/users/quinn")["effective_votes"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_profile_speaks_for_its_user_until_it_is_forgotten(learning: Learning):
    def prompt_tokens() -> list[int]:
        native = learning.generate(user_id="vera", prompt="Hi", max_tokens=1)["usage"]["prompt_tokens"]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "user": "vera", "max_tokens": 1}
        model = learning.get("/v1/models")["data"][0]["id"]
        return [native, learning.post("/v1/chat/completions", **{**body, "model": model})["usage"]["prompt_tokens"]]

    bare = prompt_tokens()
    answer = learning.http.put("/users/vera/profile", json={"profile": "I sail."})
    assert (answer.status_code, answer.json()) == (200, {"profile": "I sail."})
    assert learning.get("/users/vera")["profile"] == "I sail."
    explicit = learning.generate(user_id="vera", prompt="Hi", profile="I sail.", max_tokens=1)["usage"]["prompt_tokens"]
    assert prompt_tokens() == [explicit, explicit]
    assert explicit > bare[0]
    learning.http.put("/users/vera/profile", json={"profile": None})
    assert prompt_tokens() == bare
    assert learning.http.put("/users/vera/profile", json={"profile": "a\0b"}).status_code == 422


def test_two_candidates_are_compared_by_their_ids(learning: Learning):
    first, second = learning.post("/generate", user_id="wim", prompt="Tell me.", max_tokens=12, candidates=2)[
        "candidates"
    ]
    assert first["text"] != second["text"]
    assert first["generation_id"] != second["generation_id"]
    ids = {"chosen_generation_id": second["generation_id"], "rejected_generation_id": first["generation_id"]}
    assert learning.post("/feedback", user_id="wim", **ids)["votes"] == 1
    assert learning.http.post("/feedback", json={"user_id": "xenia", **ids}).status_code == 404
    for bad in ({"chosen_generation_id": first["generation_id"]}, {**ids, "chosen": "x", "rejected": "y"}):
        assert learning.http.post("/feedback", json={"user_id": "wim", **bad}).status_code == 422
    streamed = {"user_id": "wim", "prompt": "x", "candidates": 2, "stream": True}
    assert learning.http.post("/generate", json=streamed).status_code == 422


def test_what_chat_completions_write_may_come_back(learning: Learning):
    """Whole and in pieces, a reply has no control characters, whatever the model's tokens are."""
    odd, plain = (learning.policy.tokenizer.encode(text)[0] for text in ("\f", "x"))
    body = {"model": learning.get("/v1/models")["data"][0]["id"], "user": "short", "messages": [ASKED], "seed": 1}
    body |= {"max_tokens": 32, "temperature": 1, "logit_bias": {odd: 100, plain: 100}, "frequency_penalty": 0}
    answer = learning.post("/v1/chat/completions", **body, return_token_ids=True)["choices"][0]
    assert {odd, plain} <= set(answer["token_ids"])
    text = answer["message"]["content"]
    assert text == learning.policy.tokenizer.decode(answer["token_ids"]).replace("\f", "")
    assert text
    with learning.http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
        chunks = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == text
    again = [ASKED, {"role": "assistant", "content": text}, ASKED]
    for path in ("/generate", "/v1/chat/completions"):
        more = {"model": body["model"]} if path != "/generate" else {}
        learning.post(path, messages=again, max_tokens=1, **more)
    learning.post("/feedback", user_id="ulla", messages=[ASKED], chosen=text, rejected="no")


def test_consented_votes_are_exported_for_training(learning: Learning, tmp_path: Path):
    for number in range(5):
        pair = {"prompt": f"Export {number}?", "chosen": "yes", "rejected": "no"}
        learning.post("/feedback", user_id=f"yara-{number}", consent=number != 2, **pair)
    lines, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = learning.http.get("/feedback", params=query)
        if page.headers["x-idiolect-cursor"] == cursor:
            break
        lines += page.text.splitlines()
        cursor = page.headers["x-idiolect-cursor"]
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    exported = read_format("feedback", file)
    assert sorted(vote.user_id for vote in exported) == [f"yara-{n}" for n in (0, 1, 3, 4)]
    assert {vote.chosen for vote in exported} == {"yes"}

    learning.post("/feedback", user_id="yara-9", prompt="Later?", chosen="a", rejected="b", consent=True)
    later = learning.http.get("/feedback", params={"cursor": cursor, "format": "parquet"})
    (tmp_path / "votes.parquet").write_bytes(later.content)
    (row,) = pq.read_table(tmp_path / "votes.parquet").to_pylist()
    assert (row["user_id"], row["messages"]) == ("yara-9", [{"role": "user", "content": "Later?"}])
    for cursor in ("nonsense", base64.urlsafe_b64encode(b'{"0": "99999999999999999999-0"}').decode()):
        assert learning.http.get("/feedback", params={"cursor": cursor}).status_code == 422


def files(folder: Path) -> list[bytes]:
    """What lies on disk; a file may go while Redis writes the next."""
    found = []
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):
            found.append(file.read_bytes())
    return found


def everything(connection: redis.Redis) -> bytes:
    """Every key of Redis and all that it holds."""
    found = []
    for key in connection.scan_iter(count=1000):
        read = {
            b"string": connection.get,
            b"hash": connection.hgetall,
            b"zset": lambda key: connection.zrange(key, 0, -1),
            b"set": connection.smembers,
            b"stream": connection.xrange,
        }[connection.type(key)]
        found.append(key + repr(read(key)).encode())
    return b"\n".join(found)


def test_an_erased_user_is_found_nowhere(learning: Learning, evidence):
    """C6: neither in Redis, nor in its files, nor in the server's log; and nobody else has changed."""
    secret, other, hasty = "zoe-4711", "zoe-4712", "zoe-4713"
    words = ("Marzipan", "Trondheim", "Xylophone")
    for user_id in (secret, other, hasty):
        learning.http.put(f"/users/{user_id}/profile", json={"profile": f"{words[0]} {user_id}"})
        reply = learning.generate(user_id=user_id, prompt=f"{words[1]} {user_id}", max_tokens=2)
        vote = {"generation_id": reply["generation_id"], "chosen": f"{words[2]} {user_id}", "rejected": "no"}
        learning.post("/feedback", user_id=user_id, **vote)
        question = learning.get(f"/users/{user_id}/question")["question"]
        learning.answer(user_id, question, wants_short=True)
    deadline = time.monotonic() + 60
    while (kept := learning.get(f"/users/{other}"))["effective_votes"] < 2:
        assert time.monotonic() < deadline, "the organic pair was not scored"
        time.sleep(0.2)
    assert secret.encode() in everything(learning.connection)

    receipt = learning.http.delete(f"/users/{secret}").json()
    learning.http.delete(f"/users/{hasty}")  # while Redis rewrites its file because of the first
    assert (receipt["votes"], receipt["generations"], receipt["codes"], receipt["profiles"]) == (2, 1, 1, 1)
    time.sleep(2)  # whatever is on its way in the scorer arrives
    assert secret.encode() not in everything(learning.connection)
    assert secret.encode() not in learning.log.read_bytes()
    deadline = time.monotonic() + 30
    while any(user_id.encode() in content for content in files(learning.redis.folder) for user_id in (secret, hasty)):
        assert time.monotonic() < deadline, "the append-only file still holds the user"
        time.sleep(0.2)
    gone = learning.get(f"/users/{secret}")
    assert (gone["known"], gone["state"], gone["votes"], gone["profile"]) == (False, "generic", 0, None)
    now = learning.get(f"/users/{other}")
    assert (now["code"], now["votes"], now["profile"]) == (kept["code"], kept["votes"], kept["profile"])
    assert other.encode() in everything(learning.connection)
    n_keys = sum(1 for _ in learning.connection.scan_iter())
    scanned = f"{n_keys} keys, append-only files and log scanned: 0 bytes of the user; another user unchanged"
    evidence("C6", {"receipt": receipt["votes"], "found": 0, "scanned": scanned})
    again = learning.http.delete(f"/users/{secret}").json()
    assert (again["votes"], again["codes"]) == (0, 0)
    assert learning.post("/feedback", user_id=secret, prompt="Back?", chosen="a", rejected="b")["votes"] == 1


def test_an_erased_trained_user_stays_erased(learning: Learning):
    assert learning.get("/users/long")["state"] == "stored"
    assert learning.http.delete("/users/long").json()["codes"] == 1
    assert learning.get("/users/long")["state"] == "generic"
    # Another server of the same bundle would store all codes again, were it not for the erasure.
    learning.connection.delete(keyspace.loaded(learning.bundle.bundle_id))

    async def load() -> None:
        store = Store(learning.redis.url)
        await store.load_codes(CodeTable.of(learning.bundle), learning.bundle.user_ids, learning.bundle.codes)
        await store.close()

    asyncio.run(load())
    assert learning.get("/users/long")["state"] == "generic"
    assert learning.get("/users/short")["state"] == "stored"


def test_keys_are_required_but_for_health(learning: Learning):
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        for method, path in (
            ("POST", "/generate"),
            ("POST", "/feedback"),
            ("GET", "/users"),
            ("GET", "/users/ada"),
            ("GET", "/users/ada/votes"),
            ("GET", "/metrics"),
            ("GET", "/v1/models"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/openapi.json"),
        ):
            response = learning.http.request(method, path, headers=headers, json={})
            assert response.status_code == 401, path
            assert response.json()["error"]["code"] in ("unauthorized", "invalid_api_key"), path
        assert learning.http.get("/health/live", headers=headers).status_code == 200


def test_nothing_outlives_a_killed_server(learning: Learning):
    """The engine's processes hold the memory that the next server needs. The last test here: the server is gone."""
    children = psutil.Process(learning.pid).children(recursive=True)
    assert any("VLLM" in child.name() or "VLLM" in " ".join(child.cmdline()) for child in children)
    os.kill(learning.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while left := [child for child in children if runs(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
