"""POST /generate on real vLLM: personal, order-independent, streamed, cancelled; and the OpenAI twin."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import OpenAI

from bench.load.metrics import metric
from idiolect.bundle import Bundle
from idiolect_training.data.everyday import TASTES
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import JudgeUnavailable
from idiolect_training.evaluate.judge import judge
from idiolect_training.evaluate.replies import GENERIC, Reply
from tests.conftest import Live, read_lines
from tests.live import DEMO_BUNDLE

PROMPTS = sorted({pair["prompt"] for pair in read_lines(DEMO_BUNDLE.parent / "test.jsonl")})
USERS = [f"{taste}-1" for taste in TASTES]


def test_opposed_users_get_different_replies(live: Live):
    concise, detailed = (
        live.generate(user_id=user, prompt="What is fermentation?", max_tokens=96)
        for user in ("short-prose-plain-1", "thorough-prose-plain-1")
    )
    assert concise["personalization"]["state"] == detailed["personalization"]["state"] == "stored"
    assert 2 * len(concise["text"]) < len(detailed["text"])
    assert concise["finish_reason"] == "stop"


def test_an_unknown_user_and_no_user_are_generic_alike(live: Live):
    unknown, nobody = (
        live.generate(prompt="What is fermentation?", max_tokens=16, **who) for who in ({"user_id": "stranger"}, {})
    )
    assert unknown["personalization"]["state"] == nobody["personalization"]["state"] == "generic"
    assert unknown["text"] == nobody["text"]


def test_replies_do_not_depend_on_company(live: Live, evidence, request: pytest.FixtureRequest):
    """A4: 32 concurrent requests of 16 users (8 trained, 8 unknown), each exactly its solo greedy reply."""
    users = [*USERS, *(f"stranger-{n}" for n in range(8))]
    longest = 20 if request.config.getoption("--evidence") else 8
    requests = [
        {"user_id": users[i % 16], "prompt": PROMPTS[i % len(PROMPTS)], "max_tokens": longest - i % 5}
        for i in range(32)
    ]
    solo = [live.generate(**request)["text"] for request in requests]
    with ThreadPoolExecutor(32) as pool:
        together = [reply["text"] for reply in pool.map(lambda request: live.generate(**request), requests)]
    same = sum(a == b for a, b in zip(solo, together, strict=True))
    evidence("A4", {"requests": 32, "users": 16, "equal_to_solo": same})
    assert together == solo


def test_an_abandoned_request_leaves_no_trace(live: Live):
    """Callers that hang up, among others: the replies of those who stay are their solo replies."""
    request = {"user_id": "thorough-prose-plain-1", "prompt": "Tell me about the planet Mars.", "max_tokens": 24}
    solo = live.generate(**request)["text"]

    def hang_up(_: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            live.http.post("/generate", json={**request, "max_tokens": 2000}, timeout=0.7)

    with ThreadPoolExecutor(8) as pool:
        gone = [pool.submit(hang_up, n) for n in range(4)]
        stayed = [pool.submit(live.generate, **request) for _ in range(4)]
        assert [reply.result()["text"] for reply in stayed] == [solo] * 4
        for future in gone:
            future.result()
    # Aborted, not computed to the end: 2,000 tokens would keep the engine busy for minutes.
    began = time.monotonic()
    live.generate(prompt="Hi", max_tokens=2)
    assert time.monotonic() - began < 20


def test_replies_are_drawn_as_the_bundle_says_unless_the_request_does(live: Live, demo_bundle: Bundle):
    request = {"user_id": "thorough-list-plain-1", "prompt": "Tell me about penguins.", "max_tokens": 40}
    stated = demo_bundle.manifest.decoding.frequency_penalty
    assert stated > 0
    said, greedy = (live.generate(**request, frequency_penalty=penalty)["text"] for penalty in (stated, 0.0))
    assert live.generate(**request)["text"] == said != greedy
    client = OpenAI(base_url=f"{live.url}/v1", api_key="none")
    asked = {"model": demo_bundle.manifest.base_model.name, "user": request["user_id"], "temperature": 0}
    asked |= {"messages": [{"role": "user", "content": request["prompt"]}], "max_tokens": 40}
    for more, expected in (({}, said), ({"frequency_penalty": 0.0}, greedy)):
        assert client.chat.completions.create(**asked, **more).choices[0].message.content == expected


def events(response: httpx.Response) -> list[tuple[str, dict[str, object]]]:
    found, name = [], ""
    for line in response.iter_lines():
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            found.append((name, json.loads(line.removeprefix("data:"))))
    return found


def test_a_stream_is_the_whole_reply_in_pieces(live: Live):
    request = {"user_id": "thorough-prose-warm-1", "prompt": "What is jazz music?", "max_tokens": 20}
    whole = live.generate(**request)
    with live.http.stream("POST", "/generate", json={**request, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response)
    names = [name for name, _ in found]
    assert names[0] == "start"
    assert names[-1] == "done"
    assert names.count("text") > 5
    assert "".join(data["text"] for name, data in found if name == "text") == whole["text"]
    done = found[-1][1]
    assert done["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert done["personalization"]["state"] == "stored"
    assert "text" not in done


def test_openai_clients_are_personalized_by_user(live: Live):
    """The official client, against vLLM's own serving layer: same tokens as the native route."""
    client = OpenAI(base_url=f"{live.url}/v1", api_key="none")
    model = client.models.list().data[0]
    texts = {}
    for user in ("short-prose-plain-1", "thorough-prose-plain-1", "stranger"):
        native = live.generate(user_id=user, prompt=PROMPTS[0], max_tokens=24)
        answer = client.chat.completions.with_raw_response.create(
            model=model.id,
            user=user,
            messages=[{"role": "user", "content": PROMPTS[0]}],
            max_tokens=24,
            temperature=0,
        )
        assert answer.headers["x-idiolect-personalization"] == native["personalization"]["state"]
        completion = answer.parse()
        assert completion.choices[0].message.content == native["text"]
        assert completion.usage.prompt_tokens == native["usage"]["prompt_tokens"]
        texts[user] = native["text"]
    assert texts["short-prose-plain-1"] != texts["thorough-prose-plain-1"]


def test_openai_streams(live: Live):
    client = OpenAI(base_url=f"{live.url}/v1", api_key="none")
    request = {
        "model": "SmolLM2-135M-Instruct",
        "user": "thorough-list-plain-1",
        "messages": [{"role": "user", "content": "What is jazz music?"}],
        "max_tokens": 12,
        "temperature": 0,
    }
    counted = 'idiolect_engine_requests_total{purpose="reply"}'
    before = metric(live.http, counted)
    whole = client.chat.completions.create(**request).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**request, stream=True)]
    assert len(pieces) > 5
    assert "".join(pieces) == whole
    assert metric(live.http, counted) - before == 2  # a streamed reply is one, too


def test_a_profile_is_part_of_the_prompt(live: Live):
    plain = live.generate(prompt="Suggest a meal.", max_tokens=1)
    told = live.generate(prompt="Suggest a meal.", profile="I am a vegan.", max_tokens=1)
    assert told["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


def test_sampling_is_repeatable_by_seed(live: Live):
    request = {"prompt": "Tell me about penguins.", "max_tokens": 12, "temperature": 1.0}
    one, same = (live.generate(**request, seed=7)["text"] for _ in range(2))
    others = {live.generate(**request, seed=seed)["text"] for seed in (8, 9, 10)}
    assert one == same
    assert others - {one}


def test_a_judge_is_any_openai_endpoint(live: Live):
    """The trainer's judge against the real server; what a small model thinks of replies is not the point."""
    replies = [
        Reply(user, number, [{"role": "user", "content": prompt}], text)
        for user, text in ((GENERIC, "Mars is the fourth planet."), ("ada", "Mars. It is red and cold."))
        for number, prompt in enumerate(("What is Mars?", "Tell me about Mars."))
    ]
    votes = [Preference(user_id="ada", prompt="What is Venus?", chosen="Venus. It is hot.", rejected="A planet.")]
    with OpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        model = client.models.list().data[0]
    found = judge(replies, votes, f"{live.url}/v1", model.id, "none")
    assert found.keys() == {"ada"}
    assert found["ada"]["wins"] + found["ada"]["ties"] + found["ada"]["losses"] == 2
    assert 0 <= found["ada"]["win_rate"] <= 1
    with pytest.raises(JudgeUnavailable, match="404"):
        judge(replies, votes, f"{live.url}/v1", "another model", "none")
