"""No preference through the HTTP API, on the demo bundle, a real Redis and the small engine."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from idiolect.bundle import Bundle
from idiolect_client import Client
from idiolect_training.data.formats import read_format
from tests.parts.service import Service


async def post(running: Service, key: str | None = None, status: int = 200, **body: Any) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = await running.http.post("/feedback", json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def user(running: Service, user_id: str) -> dict[str, Any]:
    return (await running.http.get(f"/users/{user_id}")).json()


def test_the_last_answer_to_a_question_counts_a_tie_or_a_choice(run, demo_bundle: Bundle):
    async def check(running: Service) -> None:
        question = (await running.http.get("/users/ada/question")).json()["question"]
        said = {"user_id": "ada", "question_id": question["question_id"]}
        first, second = question["first"], question["second"]
        chose = await post(running, **said, chosen=first, rejected=second)
        choice = await user(running, "ada")
        tied = await post(running, "k", **said, tied=[second, first])
        assert (tied["votes"], tied["effective_votes"], tied["effect"]) == (2, 1, "counted")
        tie = await user(running, "ada")
        assert tie["code"] != choice["code"]
        again = await post(running, "k", **said, tied=[first, second])  # the same vote, told in the other order
        assert (again["vote_id"], again["duplicate"], again["votes"]) == (tied["vote_id"], True, 2)
        conflict = await post(running, "k", 409, **said, chosen=first, rejected=second)
        assert conflict["error"]["code"] == "idempotency_conflict"
        votes = (await running.http.get("/users/ada/votes")).json()["votes"]
        assert [(vote["kind"], vote["effect"]) for vote in votes] == [("tie", "counted"), ("comparison", "set_aside")]
        assert [votes[0]["chosen"], votes[0]["rejected"]] == sorted((first, second))
        back = await post(running, **said, chosen=second, rejected=first)
        assert (back["effective_votes"], back["effect"]) == (1, "counted")
        for vote in (back, chose):
            await running.http.delete(f"/users/ada/votes/{vote['vote_id']}")
        assert (await user(running, "ada"))["code"] == tie["code"]
        assert (await running.http.delete("/users/ada")).json()["votes"] == 1
        assert (await user(running, "ada"))["known"] is False

    run(check)


def test_a_tie_is_said_of_candidates_choices_and_words(run):
    async def check(running: Service) -> None:
        asked = {"user_id": "ben", "prompt": "Why do bees hum?", "max_tokens": 6, "candidates": 2}
        for seed in range(20):
            pair = (await running.http.post("/generate", json=asked | {"seed": seed})).json()["candidates"]
            if pair[0]["text"] != pair[1]["text"]:
                break
        ids = [one["generation_id"] for one in pair]
        tied = await post(running, "c", user_id="ben", tied_generation_ids=ids)
        assert tied["effect"] in ("to_be_scored", "counted")
        again = await post(running, "c", user_id="ben", tied_generation_ids=ids[::-1])
        assert (again["duplicate"], again["vote_id"]) == (True, tied["vote_id"])
        text = {"user_id": "ben", "prompt": "Why do bees hum?"}
        in_words = await post(running, **text, tied=[pair[1]["text"], pair[0]["text"]])
        assert in_words["votes"] == 2
        votes = (await running.http.get("/users/ben/votes")).json()["votes"]
        assert [vote["kind"] for vote in votes] == ["tie", "tie"]
        assert votes[0]["chosen"] == votes[1]["chosen"]
        assert votes[1]["effect"] == "set_aside"  # the same pair, told once more

        turns, name = [{"role": "user", "content": "Why?"}], f"chatcmpl-{'0' * 16}"
        kept = {"user_id": "ben", "messages": turns, "profile": None, "text": "b", "choices": ["b", "a"]}
        await running.live.store.generations.remember("ben", name, kept, time.time())
        await post(running, user_id="ben", generation_id=name, tied_indices=[0, 1])
        newest = (await running.http.get("/users/ben/votes")).json()["votes"][0]
        assert (newest["kind"], newest["chosen"], newest["rejected"]) == ("tie", "a", "b")
        await post(running, status=422, user_id="ben", generation_id=name, tied_indices=[0, 2])

    run(check)


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"prompt": "Why?", "tied": ["a", "a"]}, 422, "invalid_request"),
        ({"prompt": "Why?", "tied": ["a", "b"], "chosen": "a", "rejected": "b"}, 422, "invalid_request"),
        ({"question_id": "0" * 16, "tied": ["a", "b"]}, 404, "unknown_question"),
        ({"tied_generation_ids": ["gen-" + "0" * 32, "gen-" + "1" * 32]}, 404, "unknown_generation"),
        ({"prompt": "Why?", "tied": ["x " * 20_000, "b"]}, 413, None),
    ],
)
def test_what_is_no_tie_is_refused(run, said: dict[str, Any], status: int, code: str | None):
    async def check(running: Service) -> None:
        refused = await post(running, status=status, user_id="cid", **said)
        assert refused["error"]["code"] == code or code is None
        question = (await running.http.get("/users/cid/question")).json()["question"]
        other = {"question_id": question["question_id"], "tied": [question["first"], "another reply"]}
        await post(running, status=422, user_id="cid", **other)
        assert (await user(running, "cid"))["votes"] == 0

    run(check)


def test_ties_come_out_of_the_export_and_into_training(run, tmp_path: Path):
    async def check(running: Service) -> None:
        who = {"user_id": "dan", "consent": True}
        await post(running, **who, prompt="1?", chosen="a", rejected="b")
        await post(running, **who, prompt="1?", tied=["b", "a"])
        await post(running, **who, prompt="2?", tied=["b", "a"])
        await post(running, **who, prompt="2?", chosen="b", rejected="a")
        await post(running, user_id="dan", prompt="3?", tied=["b", "a"])
        exported = (await running.http.get("/feedback")).text
        assert [json.loads(line).get("kind") for line in exported.splitlines()] == ["tie", None]
        (tmp_path / "votes.jsonl").write_text(exported)
        votes = read_format("feedback", tmp_path / "votes.jsonl")
        assert [(vote.kind, vote.chosen, vote.rejected) for vote in votes] == [
            ("tie", "a", "b"),
            ("comparison", "b", "a"),
        ]
        parquet = await running.http.get("/feedback", params={"format": "parquet"})
        (tmp_path / "votes.parquet").write_bytes(parquet.content)
        import pyarrow.parquet as pq

        rows = pq.read_table(tmp_path / "votes.parquet").to_pylist()
        assert [row["kind"] for row in rows] == ["tie", None]

    run(check)


def test_who_cannot_choose_is_asked_on_and_no_tie_is_asked_again(run):
    """Somebody who has no preference between any two replies learns nothing new, and is not sent in circles."""

    async def check(running: Service) -> None:
        asked: set[str] = set()
        while (question := (await running.http.get("/users/eva/question")).json()["question"]) is not None:
            assert question["question_id"] not in asked
            asked.add(question["question_id"])
            both = [question["first"], question["second"]]
            answer = await post(running, user_id="eva", question_id=question["question_id"], tied=both)
        assert answer["effective_votes"] == len(asked) >= 2
        found = await user(running, "eva")
        assert 0 <= found["uncertainty"] <= 1

    run(check)


def test_the_python_client_says_it(run):
    async def check(running: Service) -> None:
        import asyncio

        def say() -> None:
            with Client(str(running.http.base_url)) as client:
                question = client.question("fay")
                assert question is not None
                both = (question.first, question.second)
                vote = client.feedback(user_id="fay", question_id=question.question_id, tied=both)
                assert vote.effect == "counted"
                assert [given.kind for given in client.votes("fay")] == ["tie"]

        await asyncio.to_thread(say)

    run(check)
