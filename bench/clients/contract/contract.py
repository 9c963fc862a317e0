"""python contract.py URL KEY NAME: the contract through the generated Python client, without anything of ours.

Prints a line of JSON for each call: operation, the status that was wanted, and what was wrong, or null. A body is right
if it is read into the type that the document says, and written out of it as it was, so that nothing gets lost.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from idiolect_generated import AuthenticatedClient
from idiolect_generated import models as m
from idiolect_generated.api.anthropic import count_tokens, messages
from idiolect_generated.api.open_ai import chat_completions, completions, model, models, responses
from idiolect_generated.api.replies import generate
from idiolect_generated.api.server import detokenize, health, live, metrics, ready, status, tokenize, version
from idiolect_generated.api.users import erase, question, set_profile, take_back, user, users, votes
from idiolect_generated.api.votes import export_votes, feedback
from idiolect_generated.types import Response

URL, KEY, NAME = sys.argv[1:]
USER = "zoë/of the sea"
client = AuthenticatedClient(base_url=URL, token=KEY, timeout=None)
stranger = AuthenticatedClient(base_url=URL, token="none of them", timeout=None)


def told(operation: str, code: int, fault: str | None) -> None:
    sys.stdout.write(json.dumps({"operation": operation, "status": code, "fault": fault}) + "\n")


def checked(operation: str, answer: Response[Any], code: int, kind: type[Any]) -> Any:
    """The body, read; prints how the call went."""
    body: Any = answer.parsed
    fault = None
    if answer.status_code != code:
        fault = f"status {answer.status_code} instead of {code}: {answer.content[:200]!r}"
    elif not isinstance(body, kind):
        fault = f"{type(body).__name__} instead of {kind.__name__}"
    elif kind is not str and body.to_dict() != json.loads(answer.content):
        fault = f"{answer.content[:200]!r} became {str(body.to_dict())[:200]}"
    told(operation, code, fault)
    return body


def streamed(operation: str, request: dict[str, Any], end: str) -> None:
    """A stream of the request that the client has built; it has no reader of events."""
    with client.get_httpx_client().stream(**request) as answer:
        text = answer.read().decode()
    right = answer.headers["content-type"].startswith("text/event-stream") and end in text
    told(operation, 200, None if right else f"no {end} in {text[:200]}")


def replies() -> None:
    ask = m.GenerateRequest(user_id=USER, prompt="Question 1?", max_tokens=4)
    checked("generate", generate.sync_detailed(client=client, body=ask), 200, m.GenerateResponse)
    turn = m.Message(role=m.MessageRole.USER, content=[m.MessagePart(type_="text", text="Question 1?")])
    two = m.GenerateRequest(messages=[turn], max_tokens=4, candidates=2)
    checked("generate", generate.sync_detailed(client=client, body=two), 200, m.CandidatesResponse)
    wrong = m.GenerateRequest(prompt="Question 1?", max_tokens=0)
    checked("generate", generate.sync_detailed(client=client, body=wrong), 422, m.NativeError)
    long = m.GenerateRequest(prompt="word " * 5000)
    checked("generate", generate.sync_detailed(client=client, body=long), 413, m.NativeError)
    checked("generate", generate.sync_detailed(client=stranger, body=ask), 401, m.NativeError)
    ask.stream = True
    streamed("generate", generate._get_kwargs(body=ask), "event: done")
    many = m.GenerateRequest(prompt="Question 1?", max_tokens=400)
    with ThreadPoolExecutor(12) as pool:
        crowd = list(pool.map(lambda _: generate.sync_detailed(client=client, body=many), range(12)))
    refused = [answer for answer in crowd if answer.status_code == 429]
    checked("generate", (refused or crowd)[0], 429, m.NativeError)


def learning() -> None:
    vote = m.FeedbackRequest(user_id=USER, prompt="Question 1?", chosen="yes", rejected="no", consent=True)
    taken = checked("feedback", feedback.sync_detailed(client=client, body=vote), 200, m.FeedbackResponse)
    key = "key-1"
    thumb = m.FeedbackRequest(user_id=USER, prompt="Question 2?", reply="yes", thumb=m.FeedbackRequestThumbType0.UP)
    checked("feedback", feedback.sync_detailed(client=client, body=thumb, idempotency_key=key), 200, m.FeedbackResponse)
    checked("feedback", feedback.sync_detailed(client=client, body=vote, idempotency_key=key), 409, m.NativeError)
    unknown = m.FeedbackRequest(user_id=USER, question_id="0" * 16, chosen="a", rejected="b")
    checked("feedback", feedback.sync_detailed(client=client, body=unknown), 404, m.NativeError)
    both = m.FeedbackRequest(user_id=USER, prompt="Question 1?", chosen="a", rejected="a")
    checked("feedback", feedback.sync_detailed(client=client, body=both), 422, m.NativeError)
    large = m.FeedbackRequest(user_id=USER, prompt="word " * 8000, chosen="a", rejected="b")
    checked("feedback", feedback.sync_detailed(client=client, body=large), 413, m.NativeError)
    checked("question", question.sync_detailed(USER, client=client), 200, m.QuestionResponse)
    checked("votes", votes.sync_detailed(USER, client=client, limit=1), 200, m.VotesResponse)
    checked("votes", votes.sync_detailed(USER, client=client, limit=0), 422, m.NativeError)
    checked("users", users.sync_detailed(client=client), 200, m.UsersResponse)
    checked("users", users.sync_detailed(client=client, cursor="none of ours"), 422, m.NativeError)
    checked("export_votes", export_votes.sync_detailed(client=client), 200, str)
    checked("export_votes", export_votes.sync_detailed(client=client, format_="csv"), 422, m.NativeError)
    said = m.ProfileRequest(profile="I sail.")
    checked("set_profile", set_profile.sync_detailed(USER, client=client, body=said), 200, m.ProfileRequest)
    known = checked("user", user.sync_detailed(USER, client=client), 200, m.UserResponse)
    assert (known.user_id, known.votes, known.profile) == (USER, 2, "I sail.")
    checked("user", user.sync_detailed("a/../b", client=client), 422, m.NativeError)
    back = take_back.sync_detailed(USER, taken.vote_id, client=client)
    checked("take_back", back, 200, m.DeletedVote)
    checked("take_back", take_back.sync_detailed(USER, taken.vote_id, client=client), 404, m.NativeError)
    gone = checked("erase", erase.sync_detailed(USER, client=client), 200, m.ErasureReceipt)
    assert gone.votes == 1


def other_apis() -> None:
    user_turn = m.ChatCompletionRequestChatMessage(role=m.ChatCompletionRequestChatMessageRole.USER, content="Hi")
    chat = m.ChatCompletionRequest(messages=[user_turn], user=USER, max_tokens=4)
    checked("chat_completions", chat_completions.sync_detailed(client=client, body=chat), 200, m.ChatCompletion)
    checked("chat_completions", chat_completions.sync_detailed(client=stranger, body=chat), 401, m.OpenAIError)
    lost = m.ChatCompletionRequest(messages=[user_turn], model="none")
    checked("chat_completions", chat_completions.sync_detailed(client=client, body=lost), 404, m.OpenAIError)
    wrong = m.ChatCompletionRequest(messages=[user_turn], max_tokens=0)
    checked("chat_completions", chat_completions.sync_detailed(client=client, body=wrong), 400, m.OpenAIError)
    chat.stream = True
    streamed("chat_completions", chat_completions._get_kwargs(body=chat), "[DONE]")
    raw = m.CompletionRequest(prompt="Question", max_tokens=4)
    checked("completions", completions.sync_detailed(client=client, body=raw), 200, m.Completion)
    raw.stream = True
    streamed("completions", completions._get_kwargs(body=raw), "[DONE]")
    response = m.ResponseRequest(input_="Question 1?", max_output_tokens=16)
    checked("responses", responses.sync_detailed(client=client, body=response), 200, m.ResponseObject)
    response.stream = True
    streamed("responses", responses._get_kwargs(body=response), "response.completed")
    turn = m.MessageRequestMessage(role=m.MessageRequestMessageRole.USER, content="Hi")
    message = m.MessageRequest(messages=[turn], max_tokens=4, metadata=m.MessageRequestMetadata(user_id=USER))
    checked("messages", messages.sync_detailed(client=client, body=message), 200, m.AnthropicMessage)
    checked("messages", messages.sync_detailed(client=stranger, body=message), 401, m.AnthropicError)
    message.stream = True
    streamed("messages", messages._get_kwargs(body=message), "message_stop")
    message.max_tokens = 0
    checked("messages", messages.sync_detailed(client=client, body=message), 400, m.AnthropicError)
    counted = m.CountRequestMessage(role=m.CountRequestMessageRole.USER, content="Hi")
    count = m.CountRequest(messages=[counted])
    checked("count_tokens", count_tokens.sync_detailed(client=client, body=count), 200, m.TokenCount)
    lost_count = m.CountRequest(messages=[counted], model="none")
    checked("count_tokens", count_tokens.sync_detailed(client=client, body=lost_count), 404, m.AnthropicError)
    checked("models", models.sync_detailed(client=client), 200, m.ModelList)
    checked("model", model.sync_detailed(f"{NAME}:generic", client=client), 200, m.Model)
    checked("model", model.sync_detailed("none", client=client), 404, m.OpenAIError)


def server() -> None:
    said = m.TokenizeRequest(prompt="Question 1?")
    ids = checked("tokenize", tokenize.sync_detailed(client=client, body=said), 200, m.TokenizeResponse).tokens
    back = detokenize.sync_detailed(client=client, body=m.DetokenizeRequest(tokens=ids))
    assert checked("detokenize", back, 200, m.DetokenizeResponse).prompt == "Question 1?"
    beyond = m.DetokenizeRequest(tokens=[1 << 30])
    checked("detokenize", detokenize.sync_detailed(client=client, body=beyond), 422, m.NativeError)
    checked("status", status.sync_detailed(client=client), 200, m.StatusResponse)
    checked("status", status.sync_detailed(client=stranger), 401, m.NativeError)
    checked("live", live.sync_detailed(client=stranger), 200, m.Health)
    checked("ready", ready.sync_detailed(client=stranger), 200, m.Ready)
    checked("health", health.sync_detailed(client=stranger), 200, m.Ready)
    checked("metrics", metrics.sync_detailed(client=client), 200, str)
    checked("version", version.sync_detailed(client=client), 200, m.VersionResponse200)


PARTS: tuple[Callable[[], None], ...] = (replies, learning, other_apis, server)
if __name__ == "__main__":
    for part in PARTS:
        part()
