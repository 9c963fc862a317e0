"""The loop through the OpenAI API: two choices of a completion, a vote on them by its id; whole and streamed."""

from typing import Any

from tests.integration.protocols.conftest import SAID, TOOL, Clients, chat


def vote(clients: Clients, user_id: str, completion_id: str, **said: Any) -> Any:
    return clients.http.post("/feedback", json={"user_id": user_id, "generation_id": completion_id, **said})


def test_two_choices_are_a_pair_to_vote_on(clients: Clients):
    completion = chat(clients, user="voter", n=2, temperature=1, seed=7)
    assert {choice.index for choice in completion.choices} == {0, 1}
    answer = vote(clients, "voter", completion.id, chosen_index=1, rejected_index=0)
    assert answer.status_code == 200, answer.text
    assert answer.json()["effect"] in ("to_be_scored", "counted")
    (given,) = clients.http.get("/users/voter/votes").json()["votes"]
    assert [given["chosen"], given["rejected"]] == [completion.choices[at].message.content for at in (1, 0)]
    assert vote(clients, "another", completion.id, chosen_index=1, rejected_index=0).status_code == 404
    assert vote(clients, "voter", completion.id, chosen_index=2, rejected_index=0).status_code == 422


def test_a_streamed_completion_is_kept_before_its_end(clients: Clients):
    chunks = list(chat(clients, user="streamer", n=2, temperature=1, seed=8, stream=True))
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert chunks[0].model_dump()["personalization"]["state"] == "generic"
    assert vote(clients, "streamer", chunks[0].id, chosen_index=0, rejected_index=1).status_code == 200
    (given,) = clients.http.get("/users/streamer/votes").json()["votes"]
    assert [given["chosen"], given["rejected"]] == texts
    thumb = vote(clients, "streamer", chunks[0].id, thumb="down", reply_index=1)
    assert thumb.status_code == 200, thumb.text
    edit = vote(clients, "streamer", chunks[0].id, edit="What I meant.")
    assert edit.status_code == 200, edit.text


def test_a_message_of_anthropics_protocol_is_voted_on_by_its_id(clients: Clients):
    cached: Any = {"type": "text", "text": "Question 1?", "cache_control": {"type": "ephemeral"}}
    asked: Any = {
        "model": clients.model,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [cached]}],
        "metadata": {"user_id": "writer"},
        "max_tokens": 8,
        "extra_body": {"temperature": 1},
    }
    whole = clients.anthropic.messages.create(**asked)
    with clients.anthropic.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    said = {"chosen_generation_id": whole.id, "rejected_generation_id": streamed.id}
    answer = clients.http.post("/feedback", json={"user_id": "writer", **said})
    assert answer.status_code == 200, answer.text
    (given,) = clients.http.get("/users/writer/votes").json()["votes"]
    assert [given["chosen"], given["rejected"]] == [reply.content[0].text for reply in (whole, streamed)]  # type: ignore[union-attr]
    assert [turn["content"] for turn in given["messages"]] == ["Be brief.", "Question 1?"]


def test_what_says_nothing_to_vote_on_is_not_kept(clients: Clients):
    """Nobody's completion, another name of the model, and one that calls a tool."""
    nobodys, generic = chat(clients), chat(clients, model=f"{clients.model}:generic", user="voter")
    called = chat(clients, user="voter", tools=[TOOL], tool_choice="required", max_tokens=60, logit_bias=clients.dense)
    assert called.choices[0].message.tool_calls
    for completion in (nobodys, generic, called):
        assert vote(clients, "voter", completion.id, thumb="up").status_code == 404
    assert chat(clients, messages=SAID, user="voter").id
