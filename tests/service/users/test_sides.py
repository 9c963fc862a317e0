"""Which reply was shown first is drawn, kept with the vote, and what only it explains is not taken for a taste."""

import re
import time
from typing import Any

import pytest

from idiolect.bundle import Bundle
from tests.parts.service import Service

ASKED = {"prompt": "Why do bees hum?", "max_tokens": 4}


async def order_of(running: Service, user_id: str) -> list[bool | None]:
    """Whether the preferred reply of each of the user's votes was shown first, as inference has it."""
    release, give_back = running.live.releases.take()
    try:
        return [vote.shown_first for vote, _ in await release.learner.effects(user_id)]
    finally:
        give_back()


def test_who_always_takes_the_first_reply_is_served_the_generic_way(run, demo_bundle: Bundle):
    """The order is drawn, kept with the vote, and what such a user says is not believed."""

    async def check(running: Service) -> None:
        http, firsts = running.http, []
        while (question := (await http.get("/users/al/question")).json()["question"]) is not None:
            assert (await http.get("/users/al/question")).json()["question"] == question
            firsts.append(question["first"] < question["second"])
            vote = {"question_id": question["question_id"], "chosen": question["first"], "rejected": question["second"]}
            answer = await http.post("/feedback", json={"user_id": "al", **vote})
        assert len(firsts) >= 8
        assert 0.2 * len(firsts) <= sum(firsts) <= 0.8 * len(firsts)
        assert answer.json()["state"] == "unexplained"
        found = (await http.get("/users/al")).json()
        assert (found["state"], found["known"], found["uncertainty"]) == ("unexplained", True, 1)
        assert found["effective_votes"] == len(firsts)
        assert found["familiar"] < 0.5
        assert found["code"] == pytest.approx(demo_bundle.user_model.generic_code.tolist(), abs=1e-6)
        assert found["belief_in_words"].startswith("nobody whom the bundle knows")
        reply = {"prompt": "Hi", "max_tokens": 4, "temperature": 0}
        of_al = (await http.post("/generate", json={"user_id": "al", **reply})).json()
        assert of_al["personalization"]["state"] == "unexplained"
        assert of_al["text"] == (await http.post("/generate", json=reply)).json()["text"]
        assert re.search(r"^idiolect_unexplained_total [1-9]", (await http.get("/metrics")).text, re.MULTILINE)

    run(check)


def test_two_candidates_come_in_an_order_that_is_drawn_for_the_user(run):
    async def check(running: Service) -> None:
        http, likely_first = running.http, []
        for number in range(24):
            asked = {"user_id": f"u{number}", "temperature": 0, **ASKED}
            likely = (await http.post("/generate", json=asked)).json()["text"]
            first, second = (await http.post("/generate", json=asked | {"candidates": 2})).json()["candidates"]
            again = (await http.post("/generate", json=asked | {"candidates": 2})).json()["candidates"]
            assert likely in (first["text"], second["text"])
            likely_first.append(first["text"] == likely)
            assert [one["text"] == likely for one in again] == [one["text"] == likely for one in (first, second)]
            ids = {"chosen_generation_id": second["generation_id"], "rejected_generation_id": first["generation_id"]}
            if first["text"] != second["text"]:
                assert (await http.post("/feedback", json={"user_id": f"u{number}", **ids})).status_code == 200
                assert await order_of(running, f"u{number}") == [False]
        assert 4 <= sum(likely_first) <= 20

    run(check)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"chosen": "a", "rejected": "b"}, None),
        ({"chosen": "a", "rejected": "b", "shown_first": "chosen"}, True),
        ({"chosen": "a", "rejected": "b", "shown_first": "rejected"}, False),
    ],
)
def test_an_application_may_say_what_it_showed_first(run, said: dict[str, Any], expected: bool | None):
    async def check(running: Service) -> None:
        vote = {"user_id": "ann", "prompt": "Why?", **said}
        assert (await running.http.post("/feedback", json=vote)).status_code == 200
        assert await order_of(running, "ann") == [expected]

    run(check)


def test_the_choices_of_a_completion_are_shown_in_their_order(run):
    async def check(running: Service) -> None:
        turns, name = [{"role": "user", "content": "Why?"}], f"chatcmpl-{'0' * 16}"
        kept = {"user_id": "ann", "messages": turns, "profile": None, "text": "a", "choices": ["a", "b"]}
        await running.live.store.generations.remember("ann", name, kept, time.time())
        vote = {"user_id": "ann", "generation_id": name, "chosen_index": 1, "rejected_index": 0}
        assert (await running.http.post("/feedback", json=vote)).status_code == 200
        assert await order_of(running, "ann") == [False]

    run(check)


def test_a_thumb_has_no_sides(run):
    async def check(running: Service) -> None:
        thumb = {"user_id": "ann", "prompt": "Why?", "reply": "So.", "thumb": "up"}
        assert (await running.http.post("/feedback", json=thumb | {"shown_first": "chosen"})).status_code == 422
        assert (await running.http.post("/feedback", json=thumb)).status_code == 200

    run(check)
