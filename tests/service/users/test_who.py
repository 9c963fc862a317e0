"""Who a request is for, wherever it is said; and every reply's body says how it was personalized."""

import json

import httpx
import pytest

from tests.parts.service import Service, events

KNOWN = "short-list-warm-1"
SAID = {"messages": [{"role": "user", "content": "What is a compiler?"}]}
CHAT = "/v1/chat/completions"


def state(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    found: str = response.json()["personalization"]["state"]
    if "x-idiolect-personalization" in response.headers:
        assert response.headers["x-idiolect-personalization"] == found
    return found


def test_the_user_is_known_by_any_of_the_names(run):
    async def check(running: Service) -> None:
        http, header = running.http, {"x-idiolect-user": KNOWN}
        assert state(await http.post(CHAT, json=SAID)) == "generic"
        for said in ({"user": KNOWN}, {"safety_identifier": KNOWN}, {"user": "", "safety_identifier": KNOWN}):
            assert state(await http.post(CHAT, json=SAID | said)) == "stored"
            assert state(await http.post(CHAT, json=SAID | said, headers=header)) == "stored"
        for said in ({}, {"user": None}, {"user": ""}):
            assert state(await http.post(CHAT, json=SAID | said, headers=header)) == "stored"
            assert state(await http.post(CHAT, json=SAID | said, headers={"x-idiolect-user": ""})) == "generic"
        assert state(await http.post("/generate", json=SAID, headers=header)) == "stored"
        assert state(await http.post("/generate", json=SAID | {"user_id": KNOWN}, headers=header)) == "stored"
        named = (await http.post("/generate", json=SAID | {"user_id": KNOWN})).json()
        assert (await http.post("/generate", json=SAID, headers=header)).json()["text"] == named["text"]

    run(check)


def test_two_users_are_an_error(run):
    async def check(running: Service) -> None:
        http, header = running.http, {"x-idiolect-user": "ada"}
        for said in ({"user": "a", "safety_identifier": "b"}, {"user": "a"}, {"safety_identifier": "a"}):
            refused = await http.post(CHAT, json=SAID | said, headers=header)
            assert refused.status_code == 400
            assert "different users" in refused.json()["error"]["message"]
        refused = await http.post("/generate", json=SAID | {"user_id": "bob"}, headers=header)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
        twice = [("x-idiolect-user", "ada"), ("x-idiolect-user", "bob")]
        assert (await http.post(CHAT, json=SAID, headers=twice)).status_code == 400

    run(check)


@pytest.mark.parametrize(
    ("sent", "user_id"),
    [
        (b"zo%C3%AB", "zoë"),
        (b"zo%c3%ab", "zoë"),
        (b"ann@example.org", "ann@example.org"),
        (b"a+b c", "a+b c"),
        (b"100%25", "100%"),
        (b"a%2Fb", "a/b"),
        ("zoë".encode(), None),
        ("zoë".encode("latin-1"), None),
        (b"100%", None),
        (b"%ff", None),
        (b"a%0Ab", None),
        (b"a%2F..%2Fb", None),
        (b"%20" * 300, None),
    ],
)
def test_the_header_is_percent_encoded(run, sent: bytes, user_id: str | None):
    async def check(running: Service) -> None:
        answer = await running.http.post("/generate", json=SAID, headers=[(b"x-idiolect-user", sent)])
        if user_id is None:
            assert answer.status_code == 422
            assert answer.json()["error"]["message"].startswith("x-idiolect-user: ")
        else:
            vote = {"user_id": user_id, "generation_id": answer.json()["generation_id"], "chosen": "a", "rejected": "b"}
            assert (await running.http.post("/feedback", json=vote)).status_code == 200

    run(check)


def test_user_fields_that_are_no_ids(run):
    async def check(running: Service) -> None:
        for field in ("user", "safety_identifier"):
            for value in (5, ["a"], {}, True, "a\nb", "x" * 257):
                refused = await running.http.post(CHAT, json=SAID | {field: value})
                assert refused.status_code == 400
                assert refused.json()["error"]["param"] == field

    run(check)


def test_a_stream_says_it_in_its_first_chunk(run):
    async def check(running: Service) -> None:
        asked = SAID | {"stream": True, "user": KNOWN}
        async with running.http.stream("POST", CHAT, json=asked) as response:
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        first, *others = (json.loads(line.removeprefix("data: ")) for line in lines[:-1])
        assert first["personalization"].keys() == {"state", "bundle", "votes"}
        assert first["personalization"]["state"] == "stored"
        assert not any("personalization" in chunk for chunk in others)
        async with running.http.stream("POST", "/generate", json=asked | {"user_id": KNOWN}) as response:
            assert response.status_code == 422
        asked = SAID | {"stream": True, "user_id": KNOWN}
        async with running.http.stream("POST", "/generate", json=asked) as response:
            seen = [data async for _, data in events(response)]
        assert seen[0]["personalization"] == seen[-1]["personalization"] == first["personalization"]

    run(check)
