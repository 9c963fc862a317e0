"""A6: whatever arrives, in requests or from Redis, the answer is typed and the engine answers afterwards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import redis

from idiolect.bundle import Bundle
from idiolect_server.store.changes import CHANNEL
from idiolect_server.store.codes import CodeTable
from tests.conftest import Live
from tests.live import DEMO_BUNDLE, ROOT
from tests.parts.bundles import refused_flips

CODE_SIZE = 8
"""Of the demo bundle, numbers."""

BAD_GENERATE = {
    "not an object": [1],
    "nothing": {},
    "number as prompt": {"prompt": 7},
    "null prompt": {"prompt": None},
    "empty prompt": {"prompt": ""},
    "both": {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
    "no messages": {"messages": []},
    "unknown role": {"messages": [{"role": "function", "content": "x"}]},
    "content parts": {"messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "x"}]}]},
    "unknown field": {"prompt": "x", "prompt_embeds": "AAAA"},
    "nul": {"prompt": "a\0b"},
    "escape": {"prompt": "a\x1b[31m"},
    "lone surrogate": {"prompt": "\ud800"},
    "user id a number": {"prompt": "x", "user_id": 7},
    "user id empty": {"prompt": "x", "user_id": ""},
    "user id of 1,000 characters": {"prompt": "x", "user_id": "u" * 1000},
    "user id with a line break": {"prompt": "x", "user_id": "a\nb"},
    "no tokens": {"prompt": "x", "max_tokens": 0},
    "too many tokens": {"prompt": "x", "max_tokens": 10**9},
    "tokens as text": {"prompt": "x", "max_tokens": "5"},
    "cold": {"prompt": "x", "temperature": -1},
    "nan": {"prompt": "x", "temperature": float("nan")},
    "infinite": {"prompt": "x", "temperature": float("inf")},
    "top_p": {"prompt": "x", "top_p": 0},
    "seed": {"prompt": "x", "seed": 2**64},
    "stop": {"prompt": "x", "stop": ["a"] * 100},
    "too many messages": {"messages": [{"role": "user", "content": "x"}] * 1000},
}

BAD_FEEDBACK = {
    "nothing": {},
    "same": {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "a"},
    "two prompts": {"user_id": "u", "prompt": "p", "generation_id": "gen-" + "0" * 32, "chosen": "a", "rejected": "b"},
    "odd generation": {"user_id": "u", "generation_id": "../x", "chosen": "a", "rejected": "b"},
    "no user": {"prompt": "p", "chosen": "a", "rejected": "b"},
    "empty": {"user_id": "u", "prompt": "p", "chosen": "", "rejected": "b"},
    "no user turn": {
        "user_id": "u",
        "messages": [{"role": "assistant", "content": "x"}],
        "chosen": "a",
        "rejected": "b",
    },
}

BAD_OPENAI = {
    "image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
    "odd parts": {"messages": [{"role": "user", "content": ["x", {"type": "text", "text": "y"}]}]},
    "embeds": {"messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "AAAA"}]}]},
    "choices": {"messages": [{"role": "user", "content": "x"}], "n": 1000},
    "priority": {"messages": [{"role": "user", "content": "x"}], "priority": -5},
    "beams": {"messages": [{"role": "user", "content": "x"}], "use_beam_search": True},
    "user id": {"messages": [{"role": "user", "content": "x"}], "user": "u" * 1000},
    "temperature": {"messages": [{"role": "user", "content": "x"}], "temperature": -5},
    "penalty": {"messages": [{"role": "user", "content": "x"}], "repetition_penalty": -1},
    "logit bias": {"messages": [{"role": "user", "content": "x"}], "logit_bias": {"999999999": 1}},
    "control characters": {"messages": [{"role": "user", "content": "a\x1b[1m\0"}]},
    "special tokens": {"messages": [{"role": "user", "content": "x"}], "add_special_tokens": True},
    "cut off": {"messages": [{"role": "user", "content": "x"}], "truncate_prompt_tokens": 1},
    "cut off whole": {"messages": [{"role": "user", "content": "x"}], "truncate_prompt_tokens": 0},
    "model": {"model": "nope", "messages": [{"role": "user", "content": "x"}]},
}


@pytest.fixture(autouse=True)
def _still_alive(live: Live):
    yield
    assert live.generate(user_id="short-prose-plain-1", prompt="Hi", max_tokens=2)["text"]


def assert_typed(response, *statuses: int) -> None:
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["code"]


def post(live: Live, path: str, content: object):
    # json.dumps writes NaN and Infinity, as many clients do.
    return live.http.post(path, content=json.dumps(content), headers={"content-type": "application/json"})


@pytest.mark.parametrize("name", BAD_GENERATE)
def test_bad_generate(live: Live, name: str):
    assert_typed(post(live, "/generate", BAD_GENERATE[name]), 422)


@pytest.mark.parametrize("name", BAD_FEEDBACK)
def test_bad_feedback(live: Live, name: str):
    assert_typed(post(live, "/feedback", BAD_FEEDBACK[name]), 422)


@pytest.mark.parametrize("name", BAD_OPENAI)
def test_bad_openai(live: Live, name: str):
    request = {"model": "SmolLM2-135M-Instruct", "max_tokens": 2, **BAD_OPENAI[name]}
    assert_typed(post(live, "/v1/chat/completions", request), 400, 404)


def test_a_conversation_in_which_no_user_speaks_is_answered(live: Live):
    for path, role in (("/generate", "system"), ("/v1/chat/completions", "assistant")):
        body = {"messages": [{"role": role, "content": "Say hello."}], "max_tokens": 4}
        assert live.http.post(path, json=body).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"prompt": "x"' + b" " * 2000, b"[" * 100_000])
def test_bodies_that_are_not_json(live: Live, content: bytes):
    response = live.http.post("/generate", content=content, headers={"content-type": "application/json"})
    assert_typed(response, 400, 422)


def test_paths_and_methods_that_do_not_exist(live: Live):
    assert_typed(live.http.get("/nowhere"), 404)
    assert_typed(live.http.get("/generate"), 405)


def test_prompts_over_the_models_length(live: Live):
    for stream in (False, True):
        response = post(live, "/generate", {"prompt": "word " * 9000, "stream": stream})
        assert_typed(response, 413)
        assert response.json()["error"]["code"] == "prompt_too_long"
    request = {"model": "SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "word " * 9000}]}
    response = post(live, "/v1/chat/completions", request)
    assert_typed(response, 400)
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_bodies_over_the_limit(live: Live):
    response = post(live, "/generate", {"prompt": "x" * (1 << 21)})
    assert_typed(response, 413)
    assert response.json()["error"]["code"] == "body_too_large"

    def chunks():
        for _ in range(64):
            yield b"x" * (1 << 16)

    response = live.http.post("/generate", content=chunks(), headers={"content-type": "application/json"})
    assert_typed(response, 413)


def test_user_ids_are_data(live: Live):
    """Ids that look like keys, paths or patterns are only ids."""
    for user_id in ("a/b", "...", "*", "{1}:votes", "é" * 256, "'; DROP", "a:b", "%2F", "short-prose-plain-1 "):
        answer = live.generate(user_id=user_id, prompt="Hi", max_tokens=1)
        assert answer["personalization"]["state"] == "generic"


@pytest.mark.parametrize("user_id", ["a/question", "a/profile", "x/votes/1-1-1", "x/../victim", ".."])
def test_user_ids_do_not_look_like_what_users_have(live: Live, user_id: str):
    """GET /users/a/question is about `a`: a user of that name could be neither read nor erased. See test_text.py."""
    assert_typed(live.http.post("/generate", json={"user_id": user_id, "prompt": "Hi"}), 422)


TABLE = CodeTable.of(Bundle.read(DEMO_BUNDLE))


def plant(live: Live, user_id: str, record: bytes) -> None:
    """In the place of the user's trained code."""
    key, field = TABLE.place(user_id)
    connection = redis.Redis.from_url(live.redis.url)
    connection.hset(key, field, record)
    connection.publish(CHANNEL, f"changed {user_id}")


GOOD_RECORD = TABLE.encode(np.full(CODE_SIZE, 1 / CODE_SIZE, np.float32))


BAD_RECORDS = {
    "empty": b"",
    "one byte": b"x",
    "half": GOOD_RECORD[: len(GOOD_RECORD) // 2],
    "one byte more": GOOD_RECORD + b"\0",
    "nan": np.full(CODE_SIZE, np.nan, "<f2").tobytes(),
    "another size": TABLE.encode(np.full(7, 1 / 7, np.float32)),
    "pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records_in_redis_fall_back_to_generic(live: Live, name: str):
    """Documented fallback: the generic reply, and the state says degraded."""
    plant(live, "planted", BAD_RECORDS[name])
    planted, generic = (
        live.generate(prompt="What is a comet?", max_tokens=6, **who) for who in ({"user_id": "planted"}, {})
    )
    assert planted["personalization"]["state"] == "degraded"
    assert planted["text"] == generic["text"]


def test_a_wrong_type_in_redis_falls_back_too(live: Live):
    plant(live, "planted", b"x")
    connection = redis.Redis.from_url(live.redis.url)
    key, _ = TABLE.place("planted")
    codes = connection.dump(key)  # other users' too
    connection.delete(key)
    connection.rpush(key, "not", "a", "hash")
    planted, generic = (live.generate(prompt="Hi", max_tokens=2, **who) for who in ({"user_id": "planted"}, {}))
    assert planted["personalization"]["state"] == "degraded"
    assert planted["personalization"]["votes"] == 0
    assert planted["text"] == generic["text"]
    connection.restore(key, 0, codes, replace=True)


@pytest.mark.parametrize("name", ["manifest.json", "adapter/adapter_model.safetensors"])
def test_the_server_does_not_start_on_a_damaged_bundle(tmp_path: Path, name: str):
    """The process ends with status 1 and names the file; tests/unit/idiolect/test_bundle.py flips bytes everywhere."""
    bundle = tmp_path / "bundle"
    shutil.copytree(DEMO_BUNDLE, bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    env = {
        **os.environ,
        "IDIOLECT_BUNDLE": str(bundle),
        "IDIOLECT_PORT": "0",
        "IDIOLECT_DATA_DIR": str(tmp_path / "data"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "idiolect_cli", "serve"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert f"cannot start: {name}" in done.stderr


def test_evidence(live: Live, evidence, request: pytest.FixtureRequest):
    """Runs last in this file: everything above has passed, on one engine that is still the same process."""
    assert request.session.testsfailed == 0
    os.kill(live.pid, 0)
    value = {
        "bad_requests": len(BAD_GENERATE) + len(BAD_FEEDBACK) + len(BAD_OPENAI),
        "bad_redis_records": len(BAD_RECORDS),
        "flipped_bytes_refused": refused_flips(DEMO_BUNDLE),
        "answers_afterwards": bool(live.generate(prompt="Hi", max_tokens=2)["text"]),
    }
    evidence("A6", value)
