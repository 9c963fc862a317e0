"""Users can be looked at: who there is, what each has voted, what of it counts, and what is believed, in words."""

from typing import Any

import httpx

from idiolect.bundle import Bundle
from tests.parts.service import Service

N_USERS = 30


async def walk(http: httpx.AsyncClient, path: str, field: str, limit: int) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(1000):
        page = (await http.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {}))).json()
        found += page[field]
        if (cursor := page["cursor"]) is None:
            return found
    raise AssertionError("the pages never end")


def test_all_users_are_listed_once(run):
    async def check(running: Service) -> None:
        http = running.http
        assert (await http.get("/users")).json() == {"users": [], "cursor": None}
        expected = {f"user/{number} é": 1 + number % 2 for number in range(N_USERS)}
        for user_id, n_votes in expected.items():
            for number in range(n_votes):
                vote = {"user_id": user_id, "prompt": f"Question {number}?", "chosen": "a", "rejected": "b"}
                assert (await http.post("/feedback", json=vote)).status_code == 200
        for user_id in ("user/0 é", "says"):
            await http.put(f"/users/{user_id}/profile", json={"profile": "I sail."})
        for limit in (1, 7, 1000):
            found = await walk(http, "/users", "users", limit)
            assert {one["user_id"]: one["votes"] for one in found} == expected | {"says": 0}
            assert len(found) == N_USERS + 1
            assert {one["user_id"] for one in found if one["has_profile"]} == {"user/0 é", "says"}
        await http.delete("/users/user/0 é")
        assert len(await walk(http, "/users", "users", 10)) == N_USERS

    run(check)


def test_votes_are_shown_and_taken_back(run, demo_bundle: Bundle):
    assert demo_bundle.bank is not None
    questions = demo_bundle.bank.questions[:3]

    async def check(running: Service) -> None:
        http, path = running.http, "/users/bob%2Fx/votes"
        assert (await http.get(path)).json() == {"user_id": "bob/x", "votes": [], "cursor": None}
        for question in (*questions, questions[0]):  # the last is said again: it replaces the first
            answer = {"question_id": question.question_id, "chosen": question.first, "rejected": question.second}
            assert (await http.post("/feedback", json={"user_id": "bob/x", **answer})).status_code == 200
        own = {"user_id": "bob/x", "prompt": "Why?", "chosen": "a", "rejected": "b", "consent": True}
        given = (await http.post("/feedback", json=own)).json()["vote_id"]
        for limit in (1, 2, 5, 100):
            found = await walk(http, path, "votes", limit)
            assert [one["messages"][-1]["content"] for one in found] == [
                "Why?",
                *(question.messages[-1]["content"] for question in (questions[0], *reversed(questions))),
            ]
        assert found[0]["vote_id"] == given
        assert found[0]["consent"]
        assert (found[0]["chosen"], found[0]["rejected"]) == ("a", "b")
        assert found[0]["given_at"] >= found[-1]["given_at"]
        assert [one["effect"] for one in found[1:]] == ["counted", "counted", "counted", "set_aside"]
        assert found[0]["effect"] in ("to_be_scored", "counted")
        for one in found:
            assert (await http.delete(f"/users/bob%2Fx/votes/{one['vote_id']}")).status_code == 200
        assert await walk(http, path, "votes", 2) == []

    run(check)


def test_cursors_that_are_not_ours_are_refused(run):
    async def check(running: Service) -> None:
        for path in ("/users", "/users/bob/votes"):
            for cursor in ("x", "é", "W10", "WzFd", "bnVsbA", "WyIxLTEiLDFd", "=" * 200, "W" * 257):
                refused = await running.http.get(path, params={"cursor": cursor})
                assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")

    run(check)


def test_what_is_believed_is_said_in_words(run, demo_bundle: Bundle):
    bank, names = demo_bundle.bank, demo_bundle.manifest.cluster_names
    assert bank is not None
    assert names is not None

    async def check(running: Service) -> None:
        async def words(user_id: str) -> str:
            found: str = (await running.http.get(f"/users/{user_id}")).json()["belief_in_words"]
            return found

        assert await words("new") == "nothing yet: served the generic way"
        assert await words("short-list-warm-1") == "as trained: no vote has added to it"
        for question, margins in zip(bank.questions, bank.slopes + bank.offsets[:, None], strict=True):
            sides = (question.first, question.second)[:: 1 if margins[0] > 0 else -1]  # as the first cluster wants it
            answer = {"question_id": question.question_id, "chosen": sides[0], "rejected": sides[1]}
            await running.http.post("/feedback", json={"user_id": "new", **answer})
        assert (await words("new")).startswith(f"almost surely {names[0]} (")

    run(check)
