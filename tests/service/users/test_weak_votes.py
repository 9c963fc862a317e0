"""Thumbs and edits through the HTTP API, on the demo bundle, a real Redis and the small engine."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.bundle import Bundle
from idiolect_training.data.formats import read_format
from tests.live import ROOT
from tests.parts.service import Service

GONE = "gen-" + "0" * 32


async def post(running: Service, key: str | None = None, status: int = 200, **body: Any) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = await running.http.post("/feedback", json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def replied(running: Service, user_id: str, prompt: str) -> dict[str, Any]:
    body = {"user_id": user_id, "prompt": prompt, "max_tokens": 6}
    return (await running.http.post("/generate", json=body)).json()


async def user(running: Service, user_id: str) -> dict[str, Any]:
    return (await running.http.get(f"/users/{user_id}")).json()


async def scored(running: Service, user_id: str, n: int = 1) -> dict[str, Any]:
    """The user, once so many votes count."""
    for _ in range(1000):
        if (known := await user(running, user_id))["effective_votes"] == n:
            return known
        await asyncio.sleep(0.02)
    raise AssertionError("no score came")


def test_a_thumb_is_scored_and_the_other_thumb_is_a_change_of_mind(run, demo_bundle: Bundle):
    async def check(running: Service) -> None:
        made = (await replied(running, "uma", "Why?"))["generation_id"]
        first = await post(running, "k1", user_id="uma", generation_id=made, thumb="down")
        assert (first["votes"], first["duplicate"]) == (1, False)
        assert first["effect"] in ("to_be_scored", "counted")
        down = await scored(running, "uma")
        again = await post(running, "k1", user_id="uma", generation_id=made, thumb="down")
        assert (again["vote_id"], again["votes"], again["duplicate"]) == (first["vote_id"], 1, True)
        refused = await post(running, "k1", 409, user_id="uma", generation_id=made, thumb="up")
        assert refused["error"]["code"] == "idempotency_conflict"
        second = await post(running, "k2", user_id="uma", generation_id=made, thumb="up")
        assert (second["votes"], second["effective_votes"], second["effect"]) == (2, 1, "counted")
        up = await user(running, "uma")
        liked, disliked = (np.array(known["code"]) / demo_bundle.bank.mean for known in (up, down))
        assert (liked.argsort() == (-disliked).argsort()).all()
        assert np.ptp(liked) > 0.01
        await running.http.delete(f"/users/uma/votes/{second['vote_id']}")
        assert (await user(running, "uma"))["code"] == down["code"]
        receipt = (await running.http.delete("/users/uma")).json()
        assert receipt["votes"] == 1
        assert (await user(running, "uma"))["known"] is False

    run(check)


def test_a_thumb_at_a_text_is_that_at_its_generation(run):
    async def check(running: Service) -> None:
        made = await replied(running, "vic", "Why?")
        await post(running, user_id="vic", generation_id=made["generation_id"], thumb="up")
        known = await scored(running, "vic")
        answer = await post(running, user_id="vic", prompt="Why?", reply=made["text"], thumb="up")
        assert (answer["votes"], answer["effective_votes"], answer["effect"]) == (2, 1, "counted")
        assert (await user(running, "vic"))["code"] == known["code"]

    run(check)


def test_an_edit_counts_as_the_pair_that_it_is(run):
    async def check(running: Service) -> None:
        made = await replied(running, "wim", "Why?")
        await post(running, user_id="wim", generation_id=made["generation_id"], edit="Because.")
        known = await scored(running, "wim")
        pair = {"chosen": "Because.", "rejected": made["text"]}
        answer = await post(running, user_id="wim", prompt="Why?", **pair)
        assert (answer["votes"], answer["effective_votes"], answer["effect"]) == (2, 1, "counted")
        assert (await user(running, "wim"))["effective_votes"] == known["effective_votes"]

    run(check)


@pytest.mark.parametrize("said", [{"thumb": "up"}, {"edit": "x"}])
def test_what_cannot_be_voted_on_is_refused(run, said):
    async def check(running: Service) -> None:
        unknown = await post(running, status=404, user_id="xia", generation_id=GONE, **said)
        assert unknown["error"]["code"] == "unknown_generation"
        both = await post(running, status=422, user_id="xia", generation_id=GONE, chosen="a", rejected="b", **said)
        assert both["error"]["code"] == "invalid_request"
        long = await post(running, status=413, user_id="xia", prompt="Why?", reply="x " * 20_000, **said)
        assert long["error"]["code"] in ("vote_too_large", "prompt_too_long")
        mine = await replied(running, "yan", "Why?")
        other = await post(running, status=404, user_id="xia", generation_id=mine["generation_id"], **said)
        assert other["error"]["code"] == "unknown_generation"
        same = {"edit": mine["text"]} if "edit" in said else said
        if "edit" in said:
            equal = await post(running, status=422, user_id="yan", generation_id=mine["generation_id"], **same)
            assert equal["error"]["code"] == "invalid_request"
        assert (await user(running, "xia"))["votes"] == 0

    run(check)


def test_kinds_come_out_of_the_export_and_into_training(run, tmp_path: Path):
    async def check(running: Service) -> None:
        text = {"user_id": "zoe", "consent": True, "reply": "So."}
        await post(running, prompt="1?", thumb="up", **text)
        await post(running, prompt="2?", thumb="down", **text)
        await post(running, prompt="3?", edit="So!", **text)
        await post(running, prompt="4?", user_id="zoe", chosen="a", rejected="b", consent=True)
        await post(running, prompt="5?", thumb="up", user_id="zoe", reply="So.")
        exported = (await running.http.get("/feedback")).text
        assert ["kind" in json.loads(line) for line in exported.splitlines()] == [True, True, True, False]
        (tmp_path / "votes.jsonl").write_text(exported)
        votes = read_format("feedback", tmp_path / "votes.jsonl")
        assert [(vote.kind, vote.chosen, vote.rejected) for vote in votes] == [
            ("thumb", "So.", ""),
            ("thumb", "", "So."),
            ("edit", "So!", "So."),
            ("comparison", "a", "b"),
        ]
        parquet = await running.http.get("/feedback", params={"format": "parquet"})
        (tmp_path / "votes.parquet").write_bytes(parquet.content)
        import pyarrow.parquet as pq

        kinds = [row["kind"] for row in pq.read_table(tmp_path / "votes.parquet").to_pylist()]
        assert kinds == ["thumb", "thumb", "edit", None]

    run(check)


def test_what_the_clients_readme_shows_is_what_happens(run):
    page = (ROOT / "clients" / "python" / "README.md").read_text()
    whole = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M))
    assert ".thumb(" in whole
    assert ".edit(" in whole

    async def check(running: Service) -> None:
        snippet = whole.replace("Client(", f'Client("{running.http.base_url}", ')
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", snippet], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        known = await user(running, "ada")
        assert (known["votes"], known["known"]) == (3, True)

    run(check)
